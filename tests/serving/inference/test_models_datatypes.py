"""Tensors as bytes and as JSON: what goes in comes out, and nothing else is let in."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from serving.errors import InvalidRequestError
from serving.models.datatypes import (
    NUMPY_NAMES,
    check_shape,
    from_list,
    from_raw,
    numpy_dtype,
    to_list,
    to_raw,
)

NUMBERS = sorted(set(NUMPY_NAMES) - {"BYTES"})
shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
words = st.lists(st.text(max_size=9), min_size=1, max_size=6)


@given(datatype=st.sampled_from(NUMBERS), data=st.data())
def test_raw_numbers_come_back(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays.arrays(numpy_dtype(datatype, "x"), shapes))
    found = from_raw(to_raw(array), datatype, array.shape, "x")
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


@given(datatype=st.sampled_from(sorted(set(NUMBERS) - {"FP16"})), data=st.data())
def test_json_numbers_come_back(datatype: str, data: st.DataObject) -> None:
    dtype = numpy_dtype(datatype, "x")
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = data.draw(arrays.arrays(dtype, shapes, elements=arrays.from_dtype(dtype, **elements)))
    flat = json.loads(json.dumps(to_list(array, "x").tolist()))
    assert np.array_equal(from_list(flat, datatype, array.shape, "x"), array)
    if array.ndim:
        assert np.array_equal(from_list(array.tolist(), datatype, array.shape, "x"), array)


@given(words)
def test_bytes_are_as_the_stock_client_writes_them(texts: list[str]) -> None:
    array = np.array([text.encode() for text in texts], np.object_)
    raw = serialize_byte_tensor(array).item()
    found = from_raw(raw, "BYTES", array.shape, "x")
    assert found.tolist() == texts
    assert to_raw(found) == raw
    assert deserialize_bytes_tensor(to_raw(found)).tolist() == array.tolist()
    assert from_list(to_list(found, "x"), "BYTES", array.shape, "x").tolist() == texts


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (b"", 1),
        (b"\x01\0\0", 1),
        (b"\x02\0\0\0a", 1),
        (b"\xff\xff\xff\xffa", 1),
        (b"\x01\0\0\0a", 2),
        (b"\x01\0\0\0a\0", 1),
        (b"\x01\0\0\0\xff", 1),
        (b"\0", 0),
    ],
)
def test_broken_bytes_are_refused(raw: bytes, count: int) -> None:
    with pytest.raises(InvalidRequestError):
        from_raw(raw, "BYTES", (count,), "x")


def test_unaligned_tensors_are_copied() -> None:
    raw = memoryview(b"\0" + np.arange(4, dtype=np.float64).tobytes())[1:]
    found = from_raw(raw, "FP64", (4,), "x")
    assert found.flags.aligned
    assert found.tolist() == [0, 1, 2, 3]


def test_large_unsigned_integers_are_exact() -> None:
    found = from_list([0, 2**64 - 1], "UINT64", (2,), "x")
    assert found.tolist() == [0, 2**64 - 1]


@pytest.mark.parametrize("shape", [None, "3", [-1], [1.0], [True], [2**31], [1] * 33, {"a": 1}])
def test_shapes_that_are_none(shape: object) -> None:
    with pytest.raises(InvalidRequestError, match="expected a shape"):
        check_shape(shape, "x")


def test_an_empty_axis_makes_no_room_for_absurd_ones() -> None:
    with pytest.raises(InvalidRequestError, match="elements"):
        check_shape([0, 2**31 - 1, 2**31 - 1, 2**31 - 1], "x")
