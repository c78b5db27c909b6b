"""Smaller numbers for a graph: fp16 throughout, or int8 weights and activations of its matmuls.

In: an fp32 ONNX file. Out: the same file, rewritten; inputs and outputs keep their dtypes. Whether
the result may be used is for `export.parity` to say.
int8 is dynamic and per output channel (activations uint8 a tensor, weights int8 a channel): the
form that ONNX Runtime has AMX kernels for on the CPU.
"""

import logging
import warnings
from pathlib import Path

from export.errors import GraphError, MissingExtraError

_MATMULS = ["MatMul", "Gemm"]
# Below this share of the weights in matmuls, int8 matmuls change hardly anything.
_WORTHWHILE = 0.25


def reduce(file: Path, precision: str) -> None:
    """Rewrite `file` in `precision`; fp32 leaves it as it is.

    Raises:
        GraphError: the graph has too little that could be reduced.
    """
    if precision == "fp32":
        return
    try:
        import onnxruntime.quantization  # noqa: F401 - named in the error where it is missing
    except ImportError as error:
        raise MissingExtraError("onnxruntime") from error
    reduced = file.with_suffix(".reduced")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is lost shows in parity, in numbers
        (_to_fp16 if precision == "fp16" else _to_int8)(file, reduced)
    reduced.replace(file)


def _to_fp16(file: Path, target: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(file)
    onnx.save(convert_float_to_float16(model, keep_io_types=True), target)


def _to_int8(file: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    share = _matmul_share(file)
    if share < _WORTHWHILE:
        raise GraphError(
            f"{file.name}: only {share:.0%} of its weights are in matrix products, int8 is of no "
            "use here; export it in fp32 or fp16"
        )
    logger = logging.getLogger()
    # It advises, on the root logger, a preparation that changes nothing for exported graphs.
    logger.addFilter(_is_not_advice)
    try:
        quantize_dynamic(
            file,
            target,
            op_types_to_quantize=_MATMULS,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logger.removeFilter(_is_not_advice)


def _matmul_share(file: Path) -> float:
    """Share of the weights, in numbers, that are an operand of a matrix product."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    sizes = {tensor.name: _count(tensor.dims) for tensor in graph.initializer}
    gathered = {n.input[0] for n in graph.node if n.op_type == "Gather"}
    used = {name for node in graph.node if node.op_type in _MATMULS for name in node.input}
    # Embedding tables are looked up, not multiplied: they count neither way.
    total = sum(size for name, size in sizes.items() if name not in gathered)
    return sum(sizes[name] for name in used if name in sizes) / max(total, 1)


def _count(dims: "list[int]") -> int:
    count = 1
    for size in dims:
        count *= size
    return count


def _is_not_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
