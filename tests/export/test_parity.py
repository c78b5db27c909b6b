"""The gate: what its figures are, and that it closes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import Repository, parity
from export.__main__ import main
from export.errors import ParityError
from export.manifest import Source, TensorSpec
from export.pipeline import publish
from export.sources.source import GraphSource, ModelSource


def test_figures_of_equal_and_of_different_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    same = parity.compare("model", "y", ([rows], [rows.copy()]), (20,))
    assert (same.max_abs_error, same.rows) == (0, 20)
    assert same.cosine == pytest.approx(1)
    assert same.rank_correlation == pytest.approx(1)
    turned = rows.copy()
    turned[3] = -turned[3]
    other = parity.compare("model", "y", ([rows], [turned]), (20,))
    assert other.cosine == pytest.approx(-1)
    assert other.rank_correlation is not None
    assert other.rank_correlation < 0.99


def test_a_row_of_ids_flips_as_a_whole() -> None:
    codes = np.zeros((10, 6), np.int32)
    flipped = codes.copy()
    flipped[2, 1] = flipped[2, 5] = 7
    figure = parity.compare("encode", "codes", ([codes], [flipped]), (10,))
    assert figure.flip_rate == pytest.approx(0.1)
    assert parity.failures((figure,), "fp32") == [
        "encode.codes: 10.0000% of rows change an ID, bar 0"
    ]


@pytest.mark.parametrize(
    ("precision", "cosine", "passes"),
    [
        ("fp32", 0.99999, True),
        ("fp32", 0.99998, False),
        ("fp16", 0.9999, True),
        ("int8", 0.999, True),
        ("int8", 0.9989, False),
        ("int8", float("nan"), False),
    ],
)
def test_the_bars(precision: str, cosine: float, passes: bool) -> None:
    from export.manifest import Parity

    figure = Parity("model", "y", 1, (1,), 0.0, cosine=cosine)
    assert (parity.failures((figure,), precision) == []) is passes


def test_rows_of_zeros_are_equal_only_to_each_other() -> None:
    zeros, ones = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    assert parity.compare("m", "y", ([zeros], [zeros]), (1,)).cosine == 1
    assert parity.compare("m", "y", ([zeros], [ones]), (1,)).cosine == 0


class Restless(torch.nn.Module):
    """Gives something else each time: no artefact can be like it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting():
            with torch.no_grad():
                self.linear.weight.mul_(-1)
        y: torch.Tensor = self.linear(x)
        return y


def _restless() -> ModelSource:
    def sample(sizes: Any, generator: torch.Generator) -> tuple[torch.Tensor]:
        return (torch.randn((sizes["batch"], 4), generator=generator),)

    graph = GraphSource(
        Restless().eval(),
        (TensorSpec("x", "float32", ("batch", 4)),),
        (TensorSpec("y", "float32", ("batch", 4)),),
        sample,
        {"batch": (1, 3, 8)},
    )
    return ModelSource("ranker", Source("test", "sha256:00"), {"model": graph})


def test_below_the_bar_nothing_is_published(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    with pytest.raises(ParityError, match="nothing was published") as caught:
        publish(_restless(), repository, "ranker", lambda _: None)
    assert "cosine" in caught.value.report[0]
    assert repository.names() == []
    assert not list((tmp_path / "ranker").glob(".staging-*"))


@pytest.mark.parametrize("also", [[], ["--dry-run"]])
def test_the_command_ends_with_1_and_a_report(
    also: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("export.sources.families.open_source", lambda spec, kind: _restless())
    assert main(["onnx", "folder", "--out", str(tmp_path), "--name", "ranker", *also]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "nothing was published" in said.err
    assert "model.y: cosine -" in said.err
    assert "bar 0.99999 for fp32" in said.err
    assert "measured:\n  model.y: 13 rows, max abs error" in said.err
    assert Repository(tmp_path).names() == []
