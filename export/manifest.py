"""The manifest: what a bundle is, takes, gives, was made from, and was shown to compute.

In and out: `manifest.json`, the one file that names all others of a bundle with their hashes.
Serving reads it without torch; the file format is owned here and nowhere else.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from export.decode import decode
from export.errors import ManifestError
from export.rules import check_digest, check_file_name, check_name, check_version

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 8 << 20
PRECISIONS = ("fp32", "fp16", "int8")
# numpy's names of all that the Open Inference Protocol has; `object` is its BYTES.
DTYPES = (
    "bool",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "object",
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor. `dtype` is numpy's name; a `str` in `shape` names a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """One computation of a bundle, and the file it lies in."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file must be: SHA-256 in hex, and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from. `revision` is a hash of them and of what gives them meaning."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Parity:
    """One output of one graph, source against artefact on the same inputs.

    `cosine` is the lowest of all rows; `rank_correlation` is Spearman's, of the rows'
    similarities; `flip_rate` is the share of rows with any ID that differs (integer outputs).
    """

    graph: str
    output: str
    rows: int
    batch_sizes: tuple[int, ...]
    max_abs_error: float
    cosine: float | None = None
    rank_correlation: float | None = None
    flip_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """Ed25519 (RFC 8032) over `signed_bytes`; both fields base64."""

    public_key: str
    value: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of a bundle. Version "0" is a draft that was not published yet.

    `metadata` is any JSON that serving needs besides tensors: a tokenizer's settings, the image
    size, the encoders that a semantic-ID tokenizer was learned on.
    `exporter` holds the versions of what wrote the graphs, and their opset.
    """

    name: str
    kind: str
    precision: str
    graphs: Mapping[str, Graph]
    source: Source
    version: str = "0"
    created: str = ""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    parity: tuple[Parity, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)
    exporter: Mapping[str, object] = field(default_factory=dict)
    signature: Signature | None = None
    format_version: int = FORMAT_VERSION


def dump(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`."""
    return (json.dumps(dataclasses.asdict(manifest), indent=2) + "\n").encode()


def parse(data: bytes) -> Manifest:
    """Read and check the bytes of a `manifest.json`.

    Raises:
        ManifestError: not JSON, from a newer release, a field at fault, a path that climbs.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(data)}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{MANIFEST_FILE} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{MANIFEST_FILE}: expected an object")
    # Before all else: fields of a later format must not be taken for mistakes.
    found = value.get("format_version")
    if type(found) is not int or found < 1:
        raise ManifestError(f"{MANIFEST_FILE}: format_version must be a number from 1 on")
    if found > FORMAT_VERSION:
        raise ManifestError(
            f"{MANIFEST_FILE} has format {found}, this release reads up to {FORMAT_VERSION}: "
            "update tessera here, or export again with this release"
        )
    manifest = decode(Manifest, value, MANIFEST_FILE)
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """Refuse what types cannot say. Raises ManifestError."""
    check_name(manifest.name)
    check_version(manifest.version)
    if manifest.precision not in PRECISIONS:
        raise ManifestError(f"precision is one of {PRECISIONS}, not {manifest.precision!r}")
    for name, entry in manifest.files.items():
        check_file_name(name)
        check_digest(entry.sha256, name)
        if name == MANIFEST_FILE or entry.bytes < 0:
            raise ManifestError(f"files.{name}: no such entry is possible")
    for name, graph in manifest.graphs.items():
        if graph.file not in manifest.files:
            raise ManifestError(f"graphs.{name}: its file {graph.file!r} is not listed in `files`")
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype not in DTYPES:
                raise ManifestError(f"graphs.{name}.{tensor.name}: unknown dtype {tensor.dtype!r}")


def signed_bytes(manifest: Manifest) -> bytes:
    """What a signature covers: everything but itself, in one canonical form."""
    return _canonical(manifest, without=("signature",))


def content_hash(manifest: Manifest) -> str:
    """Hex SHA-256 of what the bundle computes, whenever and as what version it was published."""
    without = ("signature", "version", "created", "parity", "exporter")
    return hashlib.sha256(_canonical(manifest, without)).hexdigest()


def _canonical(manifest: Manifest, without: tuple[str, ...]) -> bytes:
    value: dict[str, Any] = dataclasses.asdict(manifest)
    kept = {key: item for key, item in value.items() if key not in without}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
