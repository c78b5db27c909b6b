"""The Open Inference Protocol's requests and answers, however they travelled.

In: what `rest.py` and `messages.py` read. Out: what they write. Arrays are named and typed here;
whether a model takes them is `signature.py`'s to say.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.errors import InvalidRequestError
from serving.models.datatypes import Array
from serving.waiting import DEFAULT_PRIORITY, PRIORITIES

SERVER_NAME = "tessera"
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
)
# Of a request; they point into memory that is not shared here.
UNSUPPORTED = ("shared_memory_region", "classification")

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that was asked for; binary matters to HTTP alone."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request for one model. outputs: None asks for all of them."""

    inputs: dict[str, Array]
    outputs: tuple[Wanted, ...] | None = None
    id: str = ""
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    binary: bool = False  # of outputs that were not named

    @property
    def graph(self) -> str | None:
        """Which graph of the bundle to run; None: its default."""
        graph = self.parameters.get("graph")
        if graph is not None and not isinstance(graph, str):
            raise InvalidRequestError(f"parameter graph: expected a name, found {graph!r}")
        return graph

    @property
    def priority(self) -> int:
        """1 (most urgent) to 10; the protocol's 0 asks for the default."""
        priority = self._integer("priority", PRIORITIES)
        return priority or DEFAULT_PRIORITY

    @property
    def timeout_s(self) -> float | None:
        """Seconds from arrival to the latest useful answer; None or 0: no limit."""
        return self._integer("timeout", 2**63 - 1) / 1e6 or None

    def deadline(self, transport_s: float | None = None) -> float | None:
        """The sooner of the request's and its transport's limits, in time.monotonic() seconds."""
        limits = [seconds for seconds in (self.timeout_s, transport_s) if seconds is not None]
        return time.monotonic() + min(limits) if limits else None

    def _integer(self, name: str, most: int) -> int:
        value = self.parameters.get(name, 0)
        if type(value) is not int or not 0 <= value <= most:
            raise InvalidRequestError(
                f"parameter {name}: expected an integer from 0 to {most}, found {value!r}"
            )
        return value


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """One answer. outputs: in the order asked, each with whether HTTP sends it as binary."""

    model: str
    version: str
    id: str
    outputs: tuple[tuple[Wanted, Array], ...]


def check_parameters(parameters: Any, where: str) -> dict[str, Scalar]:
    """Parameters from outside; InvalidRequestError for a kind that cannot be served."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequestError(f"{where}: expected `parameters` as an object")
    for name, value in parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise InvalidRequestError(f"{where}: parameter {name}: expected a single value")
        if name in UNSUPPORTED:
            raise InvalidRequestError(f"{where}: {name} is not supported here; leave it out")
    return parameters


def respond(
    request: InferenceRequest, model: str, version: str, outputs: Mapping[str, Array]
) -> InferenceResponse:
    """The answer with the outputs that were asked for; InvalidRequestError for unknown names."""
    wanted = request.outputs
    if wanted is None:
        wanted = tuple(Wanted(name, request.binary) for name in outputs)
    if len({output.name for output in wanted}) != len(wanted):
        raise InvalidRequestError("an output is named twice; name each once")
    for output in wanted:
        if output.name not in outputs:
            raise InvalidRequestError(
                f"output {output.name!r}: expected one of {sorted(outputs)}; correct the name"
            )
    chosen = tuple((output, outputs[output.name]) for output in wanted)
    return InferenceResponse(model, version, request.id, chosen)
