"""The protocol over HTTP: JSON, and the binary tensor extension.

In: a request's body and headers. Out: an `InferenceRequest`; and back, an answer's body and
headers. Bodies may be compressed; what they unpack to is bounded.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from serving.errors import BodyTooLargeError, InvalidRequestError, UnsupportedMediaTypeError
from serving.models import datatypes
from serving.models.datatypes import Array, check_shape, from_list, from_raw
from serving.models.protocol import (
    InferenceRequest,
    InferenceResponse,
    Wanted,
    check_parameters,
)

HEADER_LENGTH = "inference-header-content-length"
# zlib's window bits by content encoding (RFC 9110, 8.4.1): gzip's and zlib's own framing.
_WINDOW = {"gzip": 31, "deflate": 15}
# Below this, compression costs more than it saves.
COMPRESS_FROM_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Rendered:
    """An answer's body and headers."""

    body: bytes
    headers: dict[str, str]


def read(body: bytes, headers: Mapping[str, str], limit_bytes: int) -> InferenceRequest:
    """Parse a request for inference; header names are lower case.

    Raises InvalidRequestError, UnsupportedMediaTypeError (an unknown content encoding),
    BodyTooLargeError (it unpacks to more than `limit_bytes`).
    """
    body = _unpack(body, headers.get("content-encoding", "identity"), limit_bytes)
    length = _header_length(headers.get(HEADER_LENGTH), len(body))
    try:
        head = orjson.loads(memoryview(body)[:length])
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the first {length} bytes are not JSON: {error}") from error
    if not isinstance(head, dict) or not isinstance(head.get("inputs"), list):
        raise InvalidRequestError("expected an object with a list `inputs`")
    parameters = check_parameters(head.get("parameters"), "request")
    identity = head.get("id", "")
    if not isinstance(identity, str):
        raise InvalidRequestError("`id`: expected a string")
    binary = parameters.get("binary_data_output", False) is True
    return InferenceRequest(
        inputs=_inputs(head["inputs"], memoryview(body)[length:]),
        outputs=_outputs(head.get("outputs"), binary),
        id=identity,
        parameters=parameters,
        binary=binary,
    )


def write(answer: InferenceResponse, accept_encoding: str = "") -> Rendered:
    """An answer's body and headers, compressed if the client asks for one encoding by name."""
    tails: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for wanted, array in answer.outputs:
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": datatypes.PROTOCOL_NAMES[array.dtype.name],
            "shape": list(array.shape),
        }
        if wanted.binary:
            tails.append(datatypes.to_raw(array))
            output["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            output["data"] = datatypes.to_list(array, wanted.name)
        outputs.append(output)
    head: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if answer.id:
        head["id"] = answer.id
    body = orjson.dumps(head | {"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = {"content-type": "application/json"}
    if tails:
        headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(body))}
        body = b"".join([body, *tails])
    # HTTP libraries offer "gzip, deflate" unasked; tritonclient names one when its user wants it.
    encoding = accept_encoding.strip().lower()
    if encoding in _WINDOW and len(body) >= COMPRESS_FROM_BYTES:
        packer = zlib.compressobj(level=1, wbits=_WINDOW[encoding])
        body = packer.compress(body) + packer.flush()
        headers["content-encoding"] = encoding
    return Rendered(body, headers)


def _unpack(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW:
        raise UnsupportedMediaTypeError(
            f"content encoding: expected one of {sorted(_WINDOW)}, found {encoding!r}"
        )
    unpacker = zlib.decompressobj(wbits=_WINDOW[encoding])
    try:
        plain = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise InvalidRequestError(f"the body is not {encoding}: {error}") from error
    if len(plain) > limit_bytes:
        raise BodyTooLargeError(f"the body unpacks to more than {limit_bytes} bytes; send less")
    if not unpacker.eof:
        raise InvalidRequestError(f"the {encoding} body ends too early")
    return plain


def _header_length(value: str | None, size: int) -> int:
    if value is None:
        return size
    length = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else -1
    if not 0 <= length <= size:
        raise InvalidRequestError(
            f"header {HEADER_LENGTH}: expected the length of the JSON, at most the body's {size} "
            f"bytes; found {value[:40]!r}"
        )
    return length


def _inputs(specs: list[Any], tail: memoryview) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    at = 0
    for spec in specs:
        if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
            raise InvalidRequestError("every input needs a `name`")
        name, datatype = spec["name"], spec.get("datatype")
        if name in inputs:
            raise InvalidRequestError(f"input {name!r} is given twice")
        datatypes.numpy_dtype(datatype, name)
        shape = check_shape(spec.get("shape"), name)
        size = check_parameters(spec.get("parameters"), f"input {name!r}").get("binary_data_size")
        if size is None:
            inputs[name] = from_list(spec.get("data"), str(datatype), shape, name)
            continue
        if type(size) is not int or not 0 <= size <= len(tail) - at:
            raise InvalidRequestError(
                f"input {name!r}: binary_data_size {size!r}, but {len(tail) - at} bytes are left"
            )
        inputs[name] = from_raw(tail[at : at + size], str(datatype), shape, name)
        at += size
    if at != len(tail):
        raise InvalidRequestError(f"{len(tail) - at} bytes follow the last binary tensor")
    return inputs


def _outputs(specs: Any, binary: bool) -> tuple[Wanted, ...] | None:
    if specs is None or specs == []:
        return None
    if not isinstance(specs, list):
        raise InvalidRequestError("expected `outputs` as a list")
    wanted = []
    for spec in specs:
        if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
            raise InvalidRequestError("every output needs a `name`")
        parameters = check_parameters(spec.get("parameters"), f"output {spec['name']!r}")
        wanted.append(Wanted(spec["name"], parameters.get("binary_data", binary) is True))
    return tuple(wanted)
