"""From a source to a published bundle: trace, check, compare, publish. Below the bar: nothing.

In: a `ModelSource`. Out: a bundle in a repository.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from export import parity
from export.bundle import Bundle
from export.copying import copy_file
from export.errors import GraphError, ParityError
from export.manifest import Graph, Manifest, Parity
from export.onnx_graph import write_graph
from export.precision import reduce
from export.repository import Repository
from export.sources.source import GraphSource, ModelSource

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make of a source. fallback: fp32 where the precision misses its bar."""

    precision: str = "fp32"
    fallback: bool = False
    dry_run: bool = False


def publish(
    source: ModelSource,
    repository: Repository,
    name: str,
    step: Step,
    wanted: Wanted = Wanted(),
) -> Bundle:
    """Export a source and publish it as the next version of `name`.

    Args:
        step: told what is being done, a few words each time.
        wanted: precision, and whether to publish at all.

    Returns: the published bundle; on a dry run the draft, whose files are gone.

    Raises:
        GraphError: the graph cannot be exported or does not run.
        ParityError: it runs and computes something else; nothing was published.
    """
    try:
        if wanted.dry_run:
            with TemporaryDirectory(prefix="export-") as scratch:
                return build(source, Path(scratch), name, step, wanted.precision)
        with repository.staging(name) as folder:
            draft = build(source, folder, name, step, wanted.precision)
            step("publishing")
            return repository.publish(draft)
    except ParityError as error:
        if not wanted.fallback or wanted.precision == "fp32":
            raise
        step(f"falling back to fp32: {error}")
        return publish(source, repository, name, step, Wanted(dry_run=wanted.dry_run))


def build(
    source: ModelSource, folder: Path, name: str, step: Step, precision: str = "fp32"
) -> Bundle:
    """Write a draft bundle into an empty folder. Raises as `publish` does."""
    if precision != "fp32" and any(_gives_ids(graph) for graph in source.graphs.values()):
        raise GraphError(f"{source.kind} gives IDs, which must be exact: export it in fp32")
    graphs: dict[str, Graph] = {}
    figures: list[Parity] = []
    exporter: dict[str, object] = {}
    for graph_name, graph in source.graphs.items():
        file = folder / f"{graph_name}.onnx"
        say = partial(_say, step, graph_name)
        if graph.stages:
            from export.fusion import write_stages

            written, parities = write_stages(graph, file, say)
            figures += parities
        else:
            say("tracing")
            written = write_graph(graph, file)
            say(f"writing it in {precision}")
            if reduced := reduce(file, precision, graph, parity.COSINE_BARS[precision]):
                exporter[f"{graph_name}.{precision}"] = asdict(reduced)
            say("comparing with its source")
            figures += parity.measure(graph_name, graph, file)
        if written.attention:
            exporter[f"{graph_name}.attention"] = written.attention
        exporter["opset"] = written.opset
        graphs[graph_name] = Graph(file.name, graph.inputs, graph.outputs)
    measured = tuple(figures)
    if failures := parity.failures(measured, precision):
        raise ParityError(failures, parity.lines(measured))
    for file_name, data in source.files.items():
        (folder / file_name).write_bytes(data)
    for file_name, path in source.copied.items():
        copy_file(path, folder / file_name)
    for file_name, write in source.written.items():
        step(f"writing {file_name}")
        write(folder / file_name)
    manifest = Manifest(
        name=name,
        kind=source.kind,
        precision=precision,
        graphs=graphs,
        source=source.source,
        parity=measured,
        metadata=source.metadata,
        exporter={
            **exporter,
            "torch": torch.__version__,
            "onnx": version("onnx"),
            "onnxruntime": version("onnxruntime"),
        },
    )
    return Bundle.draft(folder, manifest)


def _say(step: Step, graph: str, doing: str) -> None:
    step(f"{graph}: {doing}")


def _gives_ids(graph: GraphSource) -> bool:
    return any(tensor.dtype.startswith(("int", "uint")) for tensor in graph.outputs)
