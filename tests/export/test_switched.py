"""A graph with both kinds of every product gives what a file made for that choice gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from export import parity
from export.int8 import Weights, quantize
from export.manifest import TensorSpec
from export.onnx_graph import write_graph
from export.sources.source import GraphSource
from export.switched import Switched


class Layers(torch.nn.Module):
    """A product of three axes, two that share what they take, and one of two axes with a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.left, self.right = (torch.nn.Linear(32, 32, bias=False) for _ in range(3))
        self.last = torch.nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        y: torch.Tensor = self.last((self.left(hidden) * torch.sin(self.right(hidden))).mean(1))
        return y


@dataclass(frozen=True)
class Made:
    """Files in fp32 and in int8, the names of their products, and both in one."""

    plain: Path
    nodes: list[str]
    switched: Switched


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("switched")
    graph = GraphSource(
        Layers().eval(),
        (TensorSpec("x", "float32", ("batch", 5, 32)),),
        (TensorSpec("y", "float32", ("batch", 8)),),
        lambda sizes, generator: (torch.randn((sizes["batch"], 5, 32), generator=generator),),
        {"batch": (1, 3)},
    )
    plain = folder / "plain.onnx"
    write_graph(graph, plain)
    nodes = list(Weights(plain).nodes)
    every = quantize(plain, [], folder / "all.onnx", nodes)
    return Made(plain, nodes, Switched(plain, every, nodes, folder / "switched.onnx"))


@pytest.mark.parametrize("chosen", [0b0000, 0b1111, 0b0001, 0b1000, 0b0110])
def test_it_gives_what_the_file_of_that_choice_gives(
    chosen: int, made: Made, tmp_path: Path
) -> None:
    assert len(made.nodes) == 4
    names = [name for at, name in enumerate(made.nodes) if chosen >> at & 1]
    feeds = {"x": np.random.default_rng(1).normal(size=(6, 5, 32)).astype(np.float32)}
    alone = quantize(made.plain, [], tmp_path / "some.onnx", names) if names else made.plain
    (expected,) = parity.open_session(alone).run(None, feeds)
    ((found,),) = made.switched.run(names, [feeds])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if names:
        (exact,) = parity.open_session(made.plain).run(None, feeds)
        assert np.abs(exact - found).max() > 1e-4
