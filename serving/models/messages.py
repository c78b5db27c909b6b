"""The protocol over gRPC: its messages to our records and back.

In: `ModelInferRequest`. Out: an `InferenceRequest`; and back, `ModelInferResponse` with raw
contents. The generated messages are tritonclient's: a process can hold them only once.
"""

from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as pb

from serving.errors import InvalidRequestError
from serving.models import datatypes
from serving.models.datatypes import Array, check_shape, from_list, from_raw
from serving.models.protocol import (
    InferenceRequest,
    InferenceResponse,
    Scalar,
    Wanted,
    check_parameters,
)

# Which field of InferTensorContents carries a datatype; FP16 and BF16 have none.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read(request: Any) -> InferenceRequest:
    """A ModelInferRequest as a record. Raises InvalidRequestError."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(
            f"{len(request.inputs)} inputs, but {len(raw)} raw_input_contents; send one each"
        )
    inputs: dict[str, Array] = {}
    for place, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise InvalidRequestError(f"input {tensor.name!r} is given twice")
        datatypes.numpy_dtype(tensor.datatype, tensor.name)
        _parameters(tensor, f"input {tensor.name!r}")
        shape = check_shape(list(tensor.shape), tensor.name)
        if raw:
            inputs[tensor.name] = from_raw(raw[place], tensor.datatype, shape, tensor.name)
        else:
            inputs[tensor.name] = _typed(tensor, shape)
    for output in request.outputs:
        _parameters(output, f"output {output.name!r}")
    outputs = tuple(Wanted(output.name, True) for output in request.outputs) or None
    return InferenceRequest(inputs, outputs, request.id, _parameters(request, "request"), True)


def write(answer: InferenceResponse) -> Any:
    """An answer as a ModelInferResponse with raw contents."""
    return pb.ModelInferResponse(
        model_name=answer.model,
        model_version=answer.version,
        id=answer.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=wanted.name,
                datatype=datatypes.PROTOCOL_NAMES[array.dtype.name],
                shape=array.shape,
            )
            for wanted, array in answer.outputs
        ],
        raw_output_contents=[datatypes.to_raw(array) for _, array in answer.outputs],
    )


def fill(message: Any, document: dict[str, Any]) -> Any:
    """A JSON document of `describe.py` put into the message that carries it."""
    return json_format.ParseDict(document, message)


def _typed(tensor: Any, shape: tuple[int, ...]) -> Array:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRequestError(
            f"input {tensor.name!r}: {tensor.datatype} travels in raw_input_contents only"
        )
    values = list(getattr(tensor.contents, field))
    if tensor.datatype == "BYTES":
        try:
            values = [value.decode() for value in values]
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"input {tensor.name!r}: not UTF-8: {error}") from error
    return from_list(values, tensor.datatype, shape, tensor.name)


def _parameters(message: Any, where: str) -> dict[str, Scalar]:
    values: dict[str, Any] = {}
    for name, parameter in message.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        values[name] = getattr(parameter, kind) if kind else None
    return check_parameters(values, where)
