"""What a TensorRT plan is: for which bundle, TensorRT and GPU it was built, and its hash.

A plan is machine code for one kind of GPU and one TensorRT. It lies beside the bundle's folder,
which is immutable: in `.plans/`, with a tag of the same name. In: a bundle. Out: the plan that may
be loaded here, or none. No TensorRT in here: looking costs a directory listing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from export.bundle import Bundle
from export.decode import decode
from export.errors import IntegrityError, ManifestError, MissingExtraError
from export.hashing import digest_file

FOLDER = ".plans"


@dataclass(frozen=True, slots=True)
class Hardware:
    """A GPU: its name, and its compute capability such as "9.0"."""

    name: str
    capability: str


@dataclass(frozen=True, slots=True)
class Tag:
    """The JSON file beside a plan. profiles: (smallest, best, largest) size of each axis."""

    bundle_hash: str
    graph: str
    onnx_sha256: str
    tensorrt: str
    hardware: Hardware
    profiles: Mapping[str, tuple[int, ...]]
    plan_sha256: str
    plan_bytes: int


def plan_folder(bundle: Bundle) -> Path:
    """Where a bundle's plans lie: `NAME/.plans/VERSION/` in a local repository."""
    return bundle.directory.parent / FOLDER / bundle.directory.name


def plan_file(bundle: Bundle, graph: str, tensorrt: str, hardware: Hardware) -> Path:
    """The plan's file; its tag has the suffix `.json`."""
    gpu = "".join(c if c.isalnum() else "-" for c in hardware.name.lower())
    return plan_folder(bundle) / f"{graph}.trt{tensorrt}.sm{hardware.capability}.{gpu}.plan"


def has_plans(bundle: Bundle, graph: str) -> bool:
    """Whether there is a plan of this graph, for whatever machine."""
    return any(plan_folder(bundle).glob(f"{graph}.trt*.plan"))


def read_tag(bundle: Bundle, graph: str, file: Path) -> Tag:
    """Verify a plan: it is what was built from this very bundle.

    Raises:
        IntegrityError: no tag, one of another bundle, or a plan that is not what was built.
    """
    tag_file = file.with_suffix(".json")
    try:
        tag = decode(Tag, json.loads(tag_file.read_bytes()), str(tag_file))
    except (OSError, ValueError, ManifestError) as error:
        raise IntegrityError(f"{tag_file}: {error}: build the plan again") from error
    expected = bundle.manifest.files[bundle.manifest.graphs[graph].file].sha256
    if (tag.bundle_hash, tag.graph, tag.onnx_sha256) != (bundle.bundle_hash, graph, expected):
        raise IntegrityError(f"{file} was built from another bundle: build it again")
    found = digest_file(file)
    if found != tag.plan_sha256:
        raise IntegrityError(f"{file}: expected SHA-256 {tag.plan_sha256}, found {found}")
    return tag


def dump(tag: Tag) -> bytes:
    """The bytes of a tag."""
    return (json.dumps(asdict(tag), indent=2) + "\n").encode()


def this_hardware() -> Hardware:
    """The GPU of this machine. Raises MissingExtraError where there is none to be seen."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "gpu") from error
    if not torch.cuda.is_available():
        raise MissingExtraError("an NVIDIA GPU and a CUDA build of torch", "gpu")
    properties = torch.cuda.get_device_properties(0)
    return Hardware(properties.name, f"{properties.major}.{properties.minor}")


def load_tensorrt() -> Any:
    """The module. Raises MissingExtraError, which names the extra."""
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise MissingExtraError("TensorRT 11 (and an NVIDIA GPU)", "gpu") from error
