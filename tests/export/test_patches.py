"""Patches as one product of bytes: the same function, and only where the form is known."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import parity, patches
from export.manifest import TensorSpec
from export.onnx_graph import write_graph
from export.precision import reduce
from export.sources.image import random_pixels
from export.sources.source import GraphSource


class Tower(torch.nn.Module):
    """The first layer of a vision transformer, and one that reads its rows."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, stride: int = 8, *, bias: bool = True, high: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut = torch.nn.Conv2d(3, 64, (high, 8), (high, stride), bias=bias)
        self.head = torch.nn.Linear(64, 16)
        self.register_buffer("mean", torch.tensor([122.0, 116.0, 104.0]), persistent=False)
        self.register_buffer("std", torch.tensor([68.0, 66.0, 70.0]), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        rows = self.cut(values).flatten(2).transpose(1, 2)
        y: torch.Tensor = self.head(torch.tanh(rows)).mean(1)
        return y


def _write(tower: torch.nn.Module, file: Path) -> GraphSource:
    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        return (random_pixels(sizes["batch"], (32, 24), generator),)

    graph = GraphSource(
        tower.eval(),
        (TensorSpec("pixels", "uint8", ("batch", 32, 24, 3)),),
        (TensorSpec("y", "float32", ("batch", 16)),),
        sample,
        {"batch": (1, 3, 8)},
    )
    write_graph(graph, file)
    return graph


def _operators(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(file).graph.node]


@pytest.mark.parametrize(("bias", "high"), [(True, 8), (False, 8), (True, 16)])
def test_the_function_is_the_same(tmp_path: Path, bias: bool, high: int) -> None:
    graph = _write(Tower(bias=bias, high=high), tmp_path / "model.onnx")
    assert patches.join(tmp_path / "model.onnx", tmp_path / "joined.onnx")
    onnx.checker.check_model(str(tmp_path / "joined.onnx"))
    operators = _operators(tmp_path / "joined.onnx")
    assert not {"Conv", "Div"} & set(operators)
    figures = parity.measure("model", graph, tmp_path / "joined.onnx")
    assert not parity.failures(figures, "fp32")
    assert figures[0].max_abs_error < 1e-5


def test_windows_that_overlap_stay_a_convolution(tmp_path: Path) -> None:
    _write(Tower(stride=4), tmp_path / "model.onnx")
    assert not patches.join(tmp_path / "model.onnx", tmp_path / "joined.onnx")
    assert not (tmp_path / "joined.onnx").exists()


def test_a_picture_that_is_cut_off_stays_a_convolution(tmp_path: Path) -> None:
    _write(Tower(high=20), tmp_path / "model.onnx")  # 32 rows hold one window and a rest
    assert not patches.join(tmp_path / "model.onnx", tmp_path / "joined.onnx")


def test_int8_multiplies_the_pixels_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    graph = _write(Tower(), file)
    reduced = reduce(file, "int8", graph, 0.999)
    assert reduced is not None
    assert (reduced.method, reduced.kept, reduced.nodes) == ("dynamic", 0, 2)
    operators = _operators(file)
    assert operators.count("MatMulInteger") == 2
    assert "Conv" not in operators
    assert not parity.failures(parity.measure("model", graph, file), "int8")
    # How bright a picture is costs nothing: the mean is taken off before weights are rounded.
    generator = torch.Generator().manual_seed(1)
    bright = 255 - random_pixels(32, (32, 24), generator) // 8
    (found,) = parity.open_session(file).run(None, {"pixels": bright.numpy()})
    with torch.inference_mode():
        expected = graph.module(bright).numpy()
    assert parity.cosines(expected, found).min() > 0.999
    # Whole numbers from 0 to 255 lose nothing: two pictures that differ in one step differ.
    pixels = np.zeros((2, 32, 24, 3), np.uint8)
    pixels[:, 0, 0], pixels[1, 5, 5, 1] = 255, 1
    one, other = parity.open_session(file).run(None, {"pixels": pixels})[0]
    assert (one != other).any()
