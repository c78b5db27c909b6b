"""RPCs that an application does not have, of services that the ingress knows.

In: a deployment's class. Out: the same class, which answers them with UNIMPLEMENTED. Serve calls
methods by the RPCs' names, whatever application a call names: one that is missing would be UNKNOWN,
with a list of the class's methods for the caller to read.
"""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from serving.lookup import lookup_pb2

_SERVICES: tuple[Any, ...] = (
    lookup_pb2.DESCRIPTOR.services_by_name["Lookup"],
    service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
_STREAMED = frozenset({"ModelStreamInfer"})  # these descriptors do not tell
_Deployment = TypeVar("_Deployment")


def complete(deployment: type[_Deployment]) -> type[_Deployment]:
    """Give the class a method for every RPC that it lacks."""
    for service in _SERVICES:
        for method in service.methods:
            if not hasattr(deployment, method.name):
                make = _stream if method.name in _STREAMED else _call
                setattr(deployment, method.name, make(service.full_name, method.name))
    return deployment


def _call(service: str, name: str) -> Any:
    async def answer(self: Any, request: Any, grpc_context: Any) -> Any:
        del self, request
        _refuse(grpc_context, service, name)
        return lookup_pb2.LookupResponse()  # the code takes its place

    return answer


def _stream(service: str, name: str) -> Any:
    async def answers(self: Any, requests: Any, grpc_context: Any) -> AsyncIterator[Any]:
        del self, requests
        _refuse(grpc_context, service, name)
        nothing: tuple[Any, ...] = ()
        for answer in nothing:  # a stream is a generator, even one without answers
            yield answer

    return answers


def _refuse(context: Any, service: str, name: str) -> None:
    asked = dict(context.invocation_metadata()).get("application", "")
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    context.set_details(
        f"the application {asked!r} has no {service}/{name}; the metadata `application` chooses "
        "another"
    )
