"""Model applications as other applications reach them: through Serve handles.

In: a model's name. Out: its answers; whatever goes wrong between is one of our errors.
"""

from collections.abc import Awaitable
from typing import Any, TypeVar

from serving.deadline import Deadline
from serving.errors import OverloadedError, ServingError, UnavailableError
from serving.tensors import Tensors

# Opening and warming a version takes as long as the model is large.
LOAD_S = 300.0
_Answer = TypeVar("_Answer")


class ModelHandle:
    """One model's replicas. client: who calls, for fairness between callers (an application)."""

    def __init__(self, name: str, client: str = "") -> None:
        # Imported here, so that what uses handles can be tested without Ray.
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import BackPressureError, RayServeException

        self.name = name
        self._client = f"application:{client}"  # no name that a key could have by chance
        self._full = BackPressureError
        self._failures = (RayError, RayServeException, TimeoutError)
        self._handle: Any = serve.get_deployment_handle("model", app_name=name)

    async def infer(
        self, tensors: Tensors, version: str | None = None, deadline: Deadline | None = None
    ) -> Tensors:
        """Run the default graph at `version`. Raises ServingError."""
        timeout_s = None if deadline is None else deadline.remaining_s
        call = self._handle.infer.remote(
            tensors, version=version, timeout_s=timeout_s, client=self._client
        )
        answer: Tensors = await self._ask(call)
        return answer

    async def version(self) -> str:
        """The version that one of the replicas serves. Raises UnavailableError."""
        version: str = await self._ask(self._handle.version.remote())
        return version

    async def load(self, version: str) -> str:
        """Have every replica serve `version`; its number. Raises ServingError."""
        response = self._handle.broadcast("load", version)
        served: list[str] = await self._ask(response.results_async(timeout_s=LOAD_S))
        if not served:
            raise UnavailableError(f"model {self.name!r} has no replica now; try again")
        return served[0]

    async def unload(self) -> None:
        """Have every replica serve nothing. Raises ServingError."""
        await self._ask(self._handle.broadcast("unload").results_async(timeout_s=LOAD_S))

    async def _ask(self, response: Awaitable[_Answer]) -> _Answer:
        try:
            return await response
        except ServingError as error:  # raised by the replica itself
            # Ray gives a copy that is of the same class but has the class's own values only.
            cause: ServingError | None = getattr(error, "cause", None)
            if cause is None:
                raise
            raise cause from error
        except self._full as error:
            raise OverloadedError(f"model {self.name!r} is busy: {error}; ask later") from error
        except self._failures as error:
            raise UnavailableError(f"model {self.name!r} does not answer: {error}") from error
