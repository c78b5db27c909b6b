"""What a model and the server say of themselves: metadata, configuration, repository index.

In: a manifest and how it is served. Out: documents as the protocol and Triton's extensions write
them in JSON; `messages.py` puts the same documents into gRPC messages.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from export.manifest import Graph, Manifest, TensorSpec
from serving.batcher import Limits
from serving.models.datatypes import PROTOCOL_NAMES
from serving.models.protocol import EXTENSIONS, SERVER_NAME
from serving.tensors import batch_axis
from serving.waiting import DEFAULT_PRIORITY, PRIORITIES

PLATFORM = "onnxruntime_onnx"


def server_metadata() -> dict[str, Any]:
    """The document of `/v2`."""
    try:
        release = version("tessera")
    except PackageNotFoundError:  # run from a folder that was never installed
        release = "0"
    return {"name": SERVER_NAME, "version": release, "extensions": list(EXTENSIONS)}


def metadata(manifest: Manifest, graph: str) -> dict[str, Any]:
    """The document of `/v2/models/{name}`; open axes are -1."""
    tensors = manifest.graphs[graph]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in tensors.inputs],
        "outputs": [_tensor(spec) for spec in tensors.outputs],
    }


def config(manifest: Manifest, graph: str, limits: Limits) -> dict[str, Any]:
    """Triton's model configuration, as far as it means something here."""
    tensors = manifest.graphs[graph]
    batched = batch_axis(tensors) is not None
    document: dict[str, Any] = {
        "name": manifest.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [int(manifest.version)]}},
        "max_batch_size": limits.rows if batched else 0,
        "input": [_dims(spec, batched) for spec in tensors.inputs],
        "output": [_dims(spec, batched) for spec in tensors.outputs],
        "default_model_filename": tensors.file,
        "parameters": {
            "graph": {"string_value": graph},
            "graphs": {"string_value": ",".join(sorted(manifest.graphs))},
            "precision": {"string_value": manifest.precision},
        },
    }
    if batched:
        document["dynamic_batching"] = {
            "priority_levels": PRIORITIES,
            "default_priority_level": DEFAULT_PRIORITY,
        }
    return document


def example(graph: Graph) -> dict[str, Any]:
    """A request for inference that works: zeros, one row, open axes of 2."""
    inputs = []
    for spec in graph.inputs:
        batch = batch_axis(graph)
        shape = [s if isinstance(s, int) else 1 if s == batch else 2 for s in spec.shape]
        count = 1
        for size in shape:
            count *= size
        zero: Any = {"b": False, "f": 0.0, "object": "a"}.get(spec.dtype[:1], 0)
        inputs.append(
            {
                "name": spec.name,
                "datatype": PROTOCOL_NAMES[spec.dtype],
                "shape": shape,
                "data": ["a" if spec.dtype == "object" else zero] * count,
            }
        )
    return {"id": "example", "inputs": inputs}


def _shape(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": PROTOCOL_NAMES[spec.dtype], "shape": _shape(spec)}


def _dims(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    kind = PROTOCOL_NAMES[spec.dtype]
    dims = _shape(spec)[1:] if batched else _shape(spec)
    return {
        "name": spec.name,
        "data_type": f"TYPE_{'STRING' if kind == 'BYTES' else kind}",
        "dims": dims or [1],
    }
