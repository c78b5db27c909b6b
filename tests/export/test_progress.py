"""Long commands show how far they are: on a terminal only, and never between what they print."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from export import Repository
from export.__main__ import main
from export.manifest import Source, TensorSpec
from export.progress import counted, steps
from export.sources.source import GraphSource, ModelSource

Bars = dict[str, list[int]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_it_and_stdout_stays_a_pipe(
    tmp_path: Path,
    make_draft: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    Repository(tmp_path / "repository").publish(make_draft(payload=b"w" * 3_000_000))
    assert terminal.getvalue() == ""  # nobody asked to see it
    assert main(["verify", str(tmp_path / "repository"), "--full"]) == 0
    shown = terminal.getvalue()
    assert "verify encoder: 1" in shown
    assert "hashing model.onnx" in shown
    assert "%" in shown
    assert capsys.readouterr().out == "encoder 1: verified\n"


def test_elsewhere_it_is_one_line(
    tmp_path: Path, make_draft: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Repository(tmp_path / "repository").publish(make_draft())
    assert main(["verify", str(tmp_path / "repository"), "--full"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("verify: 1 steps in ")
    assert error.count("\n") == 1


def test_hashing_copying_and_collecting_are_counted(
    tmp_path: Path, make_draft: Any, bars: Bars
) -> None:
    root, size = tmp_path / "repository", 3_000_000
    draft = make_draft(payload=b"w" * size)
    with steps("publish"):
        Repository(root).publish(draft)
    assert bars["copying model.onnx"] == bars["hashing model.onnx"] == [size, size]
    bars.clear()
    assert main(["verify", str(root), "--full"]) == 0
    assert bars["hashing model.onnx"] == [size, size]
    assert main(["gc", str(root)]) == 0
    assert bars["looking into folders"] == [1, 1]
    assert main(["inspect", str(root / "encoder" / "1")]) == 0
    assert bars["hashing tokenizer.json"] == [2, 2]


def test_moving_to_and_from_an_object_store_is_counted(
    s3_url: str, tmp_path: Path, make_draft: Any, bars: Bars
) -> None:
    size = 300_000
    with steps("publish"):
        Repository(s3_url, cache=tmp_path / "one").publish(make_draft(payload=b"w" * size))
        assert bars["uploading model.onnx"] == [size, size]
        Repository(s3_url, cache=tmp_path / "two").open("encoder")
        assert bars["downloading model.onnx"] == [size, size]
    assert main(["gc", s3_url]) == 0
    assert bars["reading manifests"] == [1, 1]
    assert bars["looking at files"] == [2, 2]


def _ranker() -> ModelSource:
    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        return (torch.randn((sizes["batch"], 4), generator=generator),)

    graph = GraphSource(
        torch.nn.Linear(4, 2).eval(),
        (TensorSpec("x", "float32", ("batch", 4)),),
        (TensorSpec("y", "float32", ("batch", 2)),),
        sample,
        {"batch": (1, 3, 8)},
        rows=20,
        single_rows=10,
    )
    return ModelSource("ranker", Source("test", "sha256:00"), {"model": graph})


def test_comparing_is_counted(tmp_path: Path, bars: Bars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.sources.families.open_source", lambda spec, kind: _ranker())
    assert main(["onnx", "folder", "--out", str(tmp_path), "--name", "ranker"]) == 0
    # Source and artefact: 10 rows at batch 1, 20 drawn once for 3 and 8, one at the largest.
    rows = (10 + 20 + 1) + (10 + 20 + 20 + 1)
    assert bars["rows, source and artefact"] == [rows, rows]


def test_whoever_counts_needs_nobody_to_look() -> None:
    with counted("nothing", 10) as advance:
        advance(3)
