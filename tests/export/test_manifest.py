"""The manifest's bytes: read back as written, and refused when they are anything else."""

import json
from pathlib import Path
from typing import Any

import pytest

from export.bundle import Bundle
from export.errors import ManifestError
from export.manifest import FORMAT_VERSION, MAX_MANIFEST_BYTES, content_hash, dump, parse


@pytest.fixture
def value(make_draft: Any) -> dict[str, Any]:
    return json.loads(dump(make_draft().manifest))


def test_reads_back_what_was_written(make_draft: Any) -> None:
    manifest = make_draft().manifest
    assert parse(dump(manifest)) == manifest


def test_a_manifest_from_the_future_is_named_as_such(value: dict[str, Any]) -> None:
    future = {**value, "format_version": FORMAT_VERSION + 1, "quantum": True}
    with pytest.raises(ManifestError, match="update tessera"):
        parse(json.dumps(future).encode())


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        (("name",), "../etc", "cannot name a bundle"),
        (("name",), "", "cannot name a bundle"),
        (("version",), "01", "no version"),
        (("version",), 1, "expected str"),
        (("precision",), "fp8", "precision"),
        (("format_version",), True, "format_version"),
        (("graphs", "model", "file"), "other.onnx", "not listed"),
        (("graphs", "model", "inputs", 0, "dtype"), "float", "unknown dtype"),
        (("graphs", "model", "inputs", 0, "shape", 0), 1.5, "expected int or str"),
        (("graphs", "model", "inputs", 0, "shape", 0), None, "expected int or str"),
        (("files", "model.onnx", "sha256"), "AB" * 32, "SHA-256"),
        (("files", "model.onnx", "bytes"), -1, "no such entry"),
        (("files", "model.onnx", "bytes"), True, "expected int"),
        (("source",), None, "expected an object"),
        (("parity",), {}, "expected"),
    ],
)
def test_a_wrong_field_is_refused(
    value: dict[str, Any], path: tuple[Any, ...], wrong: object, message: str
) -> None:
    place: Any = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong
    with pytest.raises(ManifestError, match=message):
        parse(json.dumps(value).encode())


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "a\0", "", "manifest.json"]
)
def test_a_path_that_climbs_is_refused(value: dict[str, Any], name: str) -> None:
    value["files"][name] = value["files"]["model.onnx"]
    with pytest.raises(ManifestError):
        parse(json.dumps(value).encode())


def test_unknown_and_missing_fields_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="unknown field 'extra'"):
        parse(json.dumps({**value, "extra": 1}).encode())
    del value["source"]
    with pytest.raises(ManifestError, match="'source' is missing"):
        parse(json.dumps(value).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (MAX_MANIFEST_BYTES + 1)]
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError):
        parse(data)


def test_the_content_hash_follows_the_content_only(make_draft: Any, tmp_path: Path) -> None:
    first: Bundle = make_draft()
    assert content_hash(make_draft().manifest) == first.bundle_hash
    assert content_hash(make_draft(payload=b"others").manifest) != first.bundle_hash
