"""A torch module to an ONNX file whose dynamic axes are dynamic and whose names are its own.

In: a `GraphSource`. Out: `<graph>.onnx` and the opset it was written in. The file is loaded and run
by `export.parity`; nothing here takes the exporter's word for it.
"""

import logging
import warnings
from pathlib import Path

import torch

from export.errors import GraphError, MissingExtraError
from export.sources.source import GraphSource

OPSET = 20
# Two rows and five columns, so that no axis has the size that another one has, or that tracing
# would take for a constant (0 and 1).
_TRACED_SIZES = (2, 5, 6, 7)


def write_graph(graph: GraphSource, file: Path, opset: int = OPSET) -> int:
    """Trace a graph and write it. Returns the opset of the file.

    Raises:
        GraphError: the module cannot be traced with its axes dynamic.
    """
    try:
        import onnxscript  # noqa: F401 - torch asks for it late, with a message of its own
    except ImportError as error:
        raise MissingExtraError("onnxscript") from error
    sizes = dict(zip(graph.axes, _TRACED_SIZES, strict=False))
    axes = {name: torch.export.Dim(name, min=1) for name in graph.axes}
    shapes = tuple(
        {index: axes[size] for index, size in enumerate(tensor.shape) if isinstance(size, str)}
        for tensor in graph.inputs
    )
    example = graph.sample(sizes, torch.Generator().manual_seed(0))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns of its own internals; the graph itself is checked by running it.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                graph.module,
                example,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=opset,
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, torch._dynamo.exc.UserError) as error:
            raise GraphError(f"{file.stem} cannot be exported: {_reason(error)}") from error
    if program is None:
        raise GraphError(f"{file.stem} cannot be exported: the exporter returned nothing")
    _rename(program, graph)
    program.save(file)
    return int(program.model.opset_imports[""])


def _rename(program: torch.onnx.ONNXProgram, graph: GraphSource) -> None:
    """Give inputs and outputs their names; whatever else has one of these gets another.

    Asking the exporter for a name that it also uses inside writes a file that does not load.
    """
    traced = program.model.graph
    if (len(traced.inputs), len(traced.outputs)) != (len(graph.inputs), len(graph.outputs)):
        raise GraphError(
            f"expected {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, traced "
            f"{len(traced.inputs)} and {len(traced.outputs)}: an unused input is dropped"
        )
    own = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    inner = [value for node in traced.all_nodes() for value in node.outputs]
    inner += [*traced.inputs, *traced.initializers.values()]
    for number, value in enumerate(inner):
        if value.name in own:
            value.name = f"{value.name}.inner{number}"
    for value, tensor in zip(traced.inputs, graph.inputs, strict=True):
        value.name = tensor.name
    for value, tensor in zip(traced.outputs, graph.outputs, strict=True):
        value.name = tensor.name


def _reason(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {str(cause)[:2000]}"
