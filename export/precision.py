"""Smaller numbers for a graph: fp16 throughout, or int8 weights and activations.

In: an fp32 ONNX file, and for int8 inputs like the real ones. Out: the same file, rewritten; inputs
and outputs keep their dtypes. Whether the result may be used is for `export.parity` to say.
"""

import warnings
from pathlib import Path

from export.errors import MissingExtraError
from export.reduced import Reduced
from export.sources.source import GraphSource

_ONNX_FILE_BYTES = 1_900_000_000


def reduce(file: Path, precision: str, graph: GraphSource, bar: float) -> Reduced | None:
    """Rewrite `file` in `precision`; fp32 leaves it as it is and gives None.

    Args:
        graph: what `file` was made from; its samples calibrate int8.
        bar: the cosine that int8 leaves nodes in fp32 for.

    Raises:
        GraphError: the graph has too little that could be reduced.
    """
    if precision == "fp32":
        return None
    try:
        import onnxruntime.quantization  # noqa: F401 - named in the error where it is missing
    except ImportError as error:
        raise MissingExtraError("onnxruntime") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is lost shows in parity, in numbers
        if precision == "int8":
            from export.int8 import reduce_to_int8

            return reduce_to_int8(file, graph, bar)
        _to_fp16(file)
        return Reduced("fp16")


def _to_fp16(file: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(file), keep_io_types=True)
    data = file.with_name(f"{file.name}.data")
    data.unlink(missing_ok=True)
    is_large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _ONNX_FILE_BYTES
    onnx.save(model, file, save_as_external_data=is_large, location=data.name)
