"""A torch module to an ONNX file whose dynamic axes are dynamic and whose names are its own.

In: a `GraphSource`. Out: `<graph>.onnx`, its weights beside it where one file cannot hold them, and
what was written. The file is loaded and run by `export.parity`; nothing here takes the exporter's
word for it.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from export.errors import GraphError, MissingExtraError
from export.sources.source import GraphSource

# The first one with an operator for attention.
OPSET = 23
# A protobuf file ends at 2 GiB; weights beyond this go into a file of their own.
EXTERNAL_BYTES = 1_900_000_000
# Two rows and five columns, so that no axis has the size that another one has, or that tracing
# would take for a constant (0 and 1).
_TRACED_SIZES = (2, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class Written:
    """What an ONNX file was written as. attention: how many nodes compute it, one a layer."""

    opset: int
    attention: int


def write_graph(graph: GraphSource, file: Path, opset: int = OPSET) -> Written:
    """Trace a graph and write it.

    Raises:
        GraphError: the module cannot be traced with its axes dynamic, or attention that should be
            one node a layer is not.
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
    # Not before torch: it comes with the exporter.
    from export.attention import fuse

    attention = fuse(program.model)
    if attention < graph.attention:
        raise GraphError(
            f"{file.stem}: expected {graph.attention} layers' attention as a node each, found "
            f"{attention}: the model must use torch's scaled_dot_product_attention "
            "(attn_implementation='sdpa' in transformers)"
        )
    _rename(program, graph)
    _save(program, file)
    return Written(int(program.model.opset_imports[""]), attention)


def _save(program: torch.onnx.ONNXProgram, file: Path) -> None:
    import onnx_ir as ir

    model = program.model
    # The exporter notes where in the source each node was: paths of the machine that exports.
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    weights = [value.const_value for value in model.graph.initializers.values()]
    size = sum(int(weight.nbytes) for weight in weights if weight is not None)
    external = f"{file.name}.data" if size > EXTERNAL_BYTES else None
    ir.save(model, file, external_data=external)


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
