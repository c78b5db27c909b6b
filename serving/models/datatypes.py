"""The protocol's datatypes as numpy's, and tensors as raw bytes.

In and out: arrays, and bytes as the binary tensor extension and gRPC's raw contents carry them:
little-endian, row-major; BYTES elements each after their length in 4 bytes; BOOL in 1 byte.
Source: Open Inference Protocol v2 and Triton's binary tensor data extension.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequestError, shown

NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
PROTOCOL_NAMES = {numpy_name: name for name, numpy_name in NUMPY_NAMES.items()}
MAX_DIMENSIONS = 32
MAX_AXIS = 2**31 - 1
MAX_ELEMENTS = 2**48

Array = NDArray[Any]


def numpy_dtype(datatype: Any, tensor: str) -> np.dtype[Any]:
    """numpy's dtype of a protocol datatype; InvalidRequestError for one that is not served."""
    name = NUMPY_NAMES.get(datatype) if isinstance(datatype, str) else None
    if name is None:
        raise InvalidRequestError(
            f"tensor {tensor!r}: expected a datatype of {sorted(NUMPY_NAMES)}, "
            f"found {shown(datatype)}"
        )
    return np.dtype(name)


def check_shape(shape: Any, tensor: str) -> tuple[int, ...]:
    """A shape from outside as a tuple; InvalidRequestError unless it is one."""
    sound = (
        isinstance(shape, Sequence)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size <= MAX_AXIS for size in shape)
        # An axis of 0 makes no room for absurd ones beside it: numpy refuses them.
        and math.prod(max(size, 1) for size in shape) <= MAX_ELEMENTS
    )
    if not sound:
        sizes = shape if isinstance(shape, list) else []
        found = f"[{', '.join(map(shown, sizes[:MAX_DIMENSIONS]))}]" if sizes else shown(shape)
        raise InvalidRequestError(
            f"tensor {tensor!r}: expected a shape of at most {MAX_DIMENSIONS} sizes from 0 to "
            f"{MAX_AXIS} and {MAX_ELEMENTS} elements, found {found}"
        )
    return tuple(shape)


def elements(shape: tuple[int, ...]) -> int:
    """How many elements a shape has; a Python integer, so that it cannot overflow."""
    count = 1
    for size in shape:
        count *= size
    return count


def from_raw(raw: bytes | memoryview, datatype: str, shape: tuple[int, ...], tensor: str) -> Array:
    """The array in `raw`, a read-only view of it where the datatype allows.

    Raises InvalidRequestError unless the size is what datatype and shape ask for.
    """
    dtype, count = numpy_dtype(datatype, tensor), elements(shape)
    if datatype == "BYTES":
        return _split(raw, count, tensor).reshape(shape)
    if len(raw) != count * dtype.itemsize:
        raise InvalidRequestError(
            f"tensor {tensor!r}: {datatype} of shape {list(shape)} is {count * dtype.itemsize} "
            f"bytes, found {len(raw)}"
        )
    if dtype == np.bool_:
        return np.frombuffer(raw, np.uint8).astype(np.bool_).reshape(shape)
    array = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
    # After JSON of an odd length a tensor begins at an odd address, which not every kernel takes.
    return array if array.flags.aligned else array.copy()


def to_raw(array: Array) -> bytes:
    """The bytes of an array, as `from_raw` reads them."""
    if array.dtype == np.object_:
        parts = [part.encode() if isinstance(part, str) else bytes(part) for part in array.flat]
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def from_list(data: Any, datatype: str, shape: tuple[int, ...], tensor: str) -> Array:
    """The array in JSON data, nested or flat.

    Raises InvalidRequestError: values that the datatype does not hold, or too few or too many.
    """
    dtype = numpy_dtype(datatype, tensor)
    if datatype == "FP16":
        raise InvalidRequestError(f"tensor {tensor!r}: FP16 travels as binary data only")
    if not isinstance(data, list):
        raise InvalidRequestError(f"tensor {tensor!r}: expected `data` as a list")
    flat = _flatten(data, tensor)
    if len(flat) != elements(shape):
        raise InvalidRequestError(
            f"tensor {tensor!r}: shape {list(shape)} has {elements(shape)} elements, `data` has "
            f"{len(flat)}"
        )
    expected = _JSON_TYPES[dtype.kind]
    if not {type(value) for value in flat} <= expected:
        kinds = sorted(kind.__name__ for kind in expected)
        raise InvalidRequestError(f"tensor {tensor!r}: {datatype} holds {kinds} only")
    if datatype == "BYTES":
        array = np.empty(len(flat), np.object_)
        array[:] = flat
        return array.reshape(shape)
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype).reshape(shape)
    except (ArithmeticError, ValueError) as error:
        raise InvalidRequestError(f"tensor {tensor!r}: {datatype}: {error}") from error


def to_list(array: Array, tensor: str) -> Any:
    """The elements for JSON, flat; InvalidRequestError where JSON cannot carry the datatype."""
    if array.dtype == np.float16:
        raise InvalidRequestError(f"output {tensor!r} is FP16: ask for it as binary data")
    if array.dtype == np.object_:
        return [part.decode() if isinstance(part, bytes) else str(part) for part in array.flat]
    return np.ascontiguousarray(array).ravel()


_JSON_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "u": {int},
    "i": {int},
    "f": {int, float},
    "O": {str},
}


def _flatten(data: list[Any], tensor: str) -> list[Any]:
    """All elements of nested lists in order, without recursion."""
    for _ in range(MAX_DIMENSIONS):
        if not any(isinstance(part, list) for part in data):
            return data
        if not all(isinstance(part, list) for part in data):
            raise InvalidRequestError(f"tensor {tensor!r}: `data` mixes lists and elements")
        data = [element for part in data for element in part]
    raise InvalidRequestError(f"tensor {tensor!r}: `data` is deeper than {MAX_DIMENSIONS} lists")


def _split(raw: bytes | memoryview, count: int, tensor: str) -> Array:
    """BYTES elements as strings. (count,)"""
    view, at = memoryview(raw), 0
    parts: list[bytes] = []
    while at + 4 <= len(view) and len(parts) < count:
        (length,) = struct.unpack_from("<I", view, at)
        end = at + 4 + length
        if end > len(view):
            break
        parts.append(bytes(view[at + 4 : end]))
        at = end
    if len(parts) != count or at != len(view):
        raise InvalidRequestError(
            f"tensor {tensor!r}: expected {count} BYTES elements, each after its length in 4 "
            f"bytes, in {len(view)} bytes; found {len(parts)} in {at}"
        )
    array = np.empty(count, np.object_)
    try:
        array[:] = [part.decode() for part in parts]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"tensor {tensor!r}: BYTES must be UTF-8: {error}") from error
    return array
