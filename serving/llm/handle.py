"""The engine as the checks application reaches it: a Serve handle behind a circuit breaker.

In: asks. Out: reads, or UnavailableError within the time asked for. Serve lets a call to a
deployment without replicas wait; here the first failure opens the circuit, further calls are
answered at once, and a probe closes it when the engine answers again.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, TypeVar

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serving.errors import DeadlineExceededError, ServingError, UnavailableError
from serving.llm.asks import Ask, Read

PIECE_S = 10.0
PROBE_S = 0.5
PROBE_TIMEOUT_S = 5.0
_Answer = TypeVar("_Answer")

logger = logging.getLogger("tessera.checks")


class LlmHandle:
    """The replicas of `llm` of one application. Open from the start: the probe closes it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle  # a Serve DeploymentHandle
        self._away: str | None = "the language-model engine is starting"
        self._probe: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raises UnavailableError while the engine is away."""
        if self._away is not None:
            self._watch()
            raise UnavailableError(self._away)

    async def read(
        self, asks: Sequence[Ask], labels: tuple[int, ...], timeout_s: float
    ) -> list[Read | ServingError]:
        """See `Engine.read`. Raises UnavailableError, DeadlineExceededError."""
        self.check()
        return await self._call(self._handle.read.remote(list(asks), labels), timeout_s)

    async def generate(self, ask: Ask, max_tokens: int, timeout_s: float) -> tuple[int, ...]:
        """See `Engine.generate`. Raises ServingError."""
        self.check()
        return await self._call(self._handle.generate.remote(ask, max_tokens), timeout_s)

    async def stream(self, ask: Ask, max_tokens: int) -> AsyncGenerator[tuple[int, ...]]:
        """See `Engine.stream`; each piece within PIECE_S. Raises ServingError."""
        self.check()
        pieces = self._handle.options(stream=True).stream.remote(ask, max_tokens)
        ended = False
        try:
            while True:
                yield await self._call(anext(pieces), PIECE_S)
        except StopAsyncIteration:
            ended = True
        finally:
            if not ended:
                pieces.cancel()

    async def describe(self, timeout_s: float) -> dict[str, Any]:
        """Process id and model of a replica. Raises ServingError."""
        return await self._call(self._handle.describe.remote(), timeout_s)

    async def _call(self, response: Awaitable[_Answer], timeout_s: float) -> _Answer:
        try:
            async with asyncio.timeout(timeout_s):
                return await response
        except ServingError:  # raised by the replica itself
            raise
        except TimeoutError as error:
            self._watch()  # busy or gone: the probe finds out
            raise DeadlineExceededError(
                f"the language model did not answer within {timeout_s:.3g} s"
            ) from error
        except (RayError, RayServeException) as error:
            reason = f"the language-model engine is away ({type(error).__name__})"
            self._away = reason
            self._watch()
            raise UnavailableError(reason) from error

    def _watch(self) -> None:
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        """Ask until the engine answers; a silent one counts as away."""
        while True:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self._handle.describe.remote()
            except (RayError, RayServeException, ServingError, TimeoutError) as error:
                self._away = self._away or f"the language-model engine is away ({error!r:.80})"
                await asyncio.sleep(PROBE_S)
                continue
            if self._away is not None:
                logger.warning("the language-model engine answers")
            self._away = None
            return
