"""Sessions on TensorRT plans, where there is one for this very GPU and TensorRT.

In: a verified bundle. Out: a session, or none: then ONNX Runtime serves. A plan is machine code:
its hash and its bundle are checked before it is opened, and one of other hardware is left alone.
"""

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export import Bundle
from export.errors import ExportError, MissingExtraError
from export.manifest import Graph
from export.tensorrt_tag import has_plans, load_tensorrt, plan_file, read_tag, this_hardware
from serving.errors import ConfigurationError, RefusedInputsError

logger = logging.getLogger("tessera.session")


class TensorrtSession:
    """A graph in TensorRT."""

    provider = "TensorRT"
    threads = 0

    def __init__(self, plan: bytes, graph: Graph) -> None:
        from export.tensorrt_engine import Engine

        self.graph = graph
        self._engine = Engine(plan, graph)

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """All outputs by name. Raises RefusedInputsError for sizes outside of the plan's."""
        try:
            return self._engine.run(inputs)
        except ValueError as error:
            raise RefusedInputsError(str(error)) from error

    def close(self) -> None:
        del self._engine


def open_plan(bundle: Bundle, graph: str) -> TensorrtSession | None:
    """A session on the plan that was built for this machine; None where there is none.

    Raises ConfigurationError: there is one, and it must not be loaded.
    """
    if not has_plans(bundle, graph):
        return None
    label = f"{bundle.manifest.name} {bundle.manifest.version} {graph}"
    try:
        file = plan_file(bundle, graph, load_tensorrt().__version__, this_hardware())
    except MissingExtraError as error:
        logger.info("%s: its plans are not used here: %s", label, error)
        return None
    if not file.exists():
        logger.warning("%s: no plan for this GPU and TensorRT (%s)", label, file.name)
        return None
    try:
        read_tag(bundle, graph, file)
        session = TensorrtSession(file.read_bytes(), bundle.manifest.graphs[graph])
    except ExportError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    logger.info("session opened: %s in TensorRT, %s", label, file.name)
    return session
