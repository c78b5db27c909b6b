"""What policies add to the model's own prompts is in the engine's cache before anybody asks.

In: the policies that there are now. Out: the engine has computed each prefix once: at the start,
when a policy is new, and when the engine was away. The model's own prompts it warms itself.
"""

import asyncio
import logging
from collections.abc import Callable

from serving.checks.policies import PolicyBook
from serving.checks.policy import Policy
from serving.checks.understander import Understander
from serving.errors import ServingError, UnavailableError

POLL_S = 1.0

logger = logging.getLogger("tessera.checks")


class Warming:
    """`ask`: what asks the engine under a policy."""

    def __init__(self, book: PolicyBook, ask: Callable[[Policy], Understander]) -> None:
        self._book = book
        self._ask = ask
        self._warm: set[str] = set()

    def cold(self) -> list[Policy]:
        """Policies with a text or examples that the engine has not read yet."""
        there = self._book.policies.values()
        return [
            p for p in there if p.version not in self._warm and (p.file.text or p.file.examples)
        ]

    async def settle(self) -> None:
        """Warm what is cold. Raises ServingError."""
        for policy in self.cold():
            await self._ask(policy).warm()
            self._warm.add(policy.version)

    async def run(self, check: Callable[[], None]) -> None:
        """Until cancelled. check: raises UnavailableError while the engine is away."""
        while True:
            try:
                check()
                await self.settle()
            except UnavailableError:
                self._warm.clear()  # an engine that comes back has forgotten
            except ServingError as error:
                logger.warning("policies stay cold: %s", error)
            await asyncio.sleep(POLL_S)
