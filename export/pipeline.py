"""From a source to a published bundle: trace, check, compare, publish. Below the bar: nothing.

In: a `ModelSource`. Out: a bundle in a repository.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from export import parity
from export.bundle import Bundle
from export.errors import ParityError
from export.manifest import Graph, Manifest, Parity
from export.onnx_graph import write_graph
from export.repository import Repository
from export.sources.source import ModelSource

Step = Callable[[str], None]


def publish(source: ModelSource, repository: Repository, name: str, step: Step) -> Bundle:
    """Export a source and publish it as the next version of `name`.

    Args:
        step: told what is being done, a few words each time.

    Raises:
        GraphError: the graph cannot be exported or does not run.
        ParityError: it runs and computes something else; nothing was published.
    """
    with repository.staging(name) as folder:
        draft = build(source, folder, name, step)
        step("publishing")
        return repository.publish(draft)


def build(source: ModelSource, folder: Path, name: str, step: Step) -> Bundle:
    """Write a draft bundle into an empty folder. Raises as `publish` does."""
    graphs: dict[str, Graph] = {}
    figures: list[Parity] = []
    opset = 0
    for graph_name, graph in source.graphs.items():
        file = folder / f"{graph_name}.onnx"
        step(f"tracing {graph_name}")
        opset = write_graph(graph, file)
        step(f"comparing {graph_name} with its source")
        figures += parity.measure(graph_name, graph, file)
        graphs[graph_name] = Graph(file.name, graph.inputs, graph.outputs)
    measured = tuple(figures)
    if failures := parity.failures(measured, "fp32"):
        raise ParityError(failures, parity.lines(measured))
    for file_name, data in source.files.items():
        (folder / file_name).write_bytes(data)
    manifest = Manifest(
        name=name,
        kind=source.kind,
        precision="fp32",
        graphs=graphs,
        source=source.source,
        parity=measured,
        metadata=source.metadata,
        exporter={
            "opset": opset,
            "torch": torch.__version__,
            "onnx": version("onnx"),
            "onnxruntime": version("onnxruntime"),
        },
    )
    return Bundle.draft(folder, manifest)
