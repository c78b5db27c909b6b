"""int8: calibrated or dynamic, with what is too sensitive left in fp32, or a clear no."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import pytest
import torch

from export import Repository
from export.errors import GraphError, ParityError
from export.int8 import choose
from export.manifest import Source, TensorSpec
from export.onnx_graph import write_graph
from export.pipeline import Wanted, publish
from export.precision import reduce
from export.progress import steps
from export.sources.image import random_pixels
from export.sources.source import GraphSource, ModelSource


def _source(module: torch.nn.Module, shape: tuple[int, ...], width: int) -> ModelSource:
    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        if len(shape) == 3:
            pixels = random_pixels(sizes["batch"], (16, 16), generator)
            return (pixels.permute(0, 3, 1, 2).float() / 255,)
        return (torch.randn((sizes["batch"], *shape), generator=generator),)

    graph = GraphSource(
        module.eval(),
        (TensorSpec("x", "float32", ("batch", *shape)),),
        (TensorSpec("y", "float32", ("batch", width)),),
        sample,
        {"batch": (1, 3, 8)},
    )
    return ModelSource("ranker", Source("test", "sha256:00"), {"model": graph})


def _operators(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(file).graph.node]


class Convolutions(torch.nn.Module):
    """Wide enough for its weights to be in convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 3, 2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(32, 64, 3),
            torch.nn.ReLU(),
        )
        self.head = torch.nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.layers(x).mean((2, 3)))
        return y


class Sensitive(torch.nn.Module):
    """Three layers bear int8, one does not: what it gives goes through a wild sine."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.middle, self.last = (torch.nn.Linear(64, 64) for _ in range(3))
        self.side = torch.nn.Linear(64, 64)
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wild = torch.sin(self.gain * self.middle(x))
        y: torch.Tensor = self.last(torch.relu(self.first(x))) + self.side(x) + wild
        return y


def test_convolutions_are_calibrated(tmp_path: Path, bars: dict[str, list[int]]) -> None:
    source = _source(Convolutions(), (3, 16, 16), 8)
    with steps("export"):
        bundle = publish(
            source, Repository(tmp_path), "tower", lambda _: None, Wanted("int8", fallback=False)
        )
    assert bars["calibrating"] == [5, 5]
    assert bundle.manifest.precision == "int8"
    how = bundle.manifest.exporter["model.int8"]
    assert isinstance(how, dict)
    assert how["method"] == "calibrated"
    assert "QuantizeLinear" in _operators(bundle.path())
    assert bundle.manifest.parity[0].cosine is not None
    assert bundle.manifest.parity[0].cosine >= 0.999


def test_what_is_too_sensitive_stays_in_fp32(tmp_path: Path, bars: dict[str, list[int]]) -> None:
    source = _source(Sensitive(200), (64,), 64)
    with steps("export"):
        bundle = publish(source, Repository(tmp_path), "ranker", lambda _: None, Wanted("int8"))
    assert bars["ranking nodes by what each costs"] == [4, 4]
    assert bars["how many keep the bar"] == [2, 2]
    how = bundle.manifest.exporter["model.int8"]
    assert isinstance(how, dict)
    assert (how["method"], how["kept"], how["nodes"]) == ("dynamic", 1, 4)
    operators = _operators(bundle.path())
    assert operators.count("MatMulInteger") == 3
    assert bundle.manifest.parity[0].cosine is not None
    assert bundle.manifest.parity[0].cosine >= 0.999


class Chaos(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.only = torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(500 * self.only(x))


def test_below_its_bar_it_fails_or_falls_back(tmp_path: Path) -> None:
    source = _source(Chaos(), (64,), 64)
    repository = Repository(tmp_path)
    with pytest.raises(ParityError, match="nothing was published"):
        publish(source, repository, "ranker", lambda _: None, Wanted("int8"))
    assert repository.names() == []
    said: list[str] = []
    bundle = publish(source, repository, "ranker", said.append, Wanted("int8", fallback=True))
    assert bundle.manifest.precision == "fp32"
    assert any(line.startswith("falling back to fp32") for line in said)


def test_a_graph_without_products_is_refused(tmp_path: Path) -> None:
    class Looked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    graph = _source(Looked(), (64,), 64).graphs["model"]
    write_graph(graph, tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="of no use"):
        reduce(tmp_path / "model.onnx", "int8", graph, 0.999)


@pytest.mark.parametrize("harmful", [{"c"}, {"a", "d"}, {"a", "b", "c", "d", "e"}])
def test_the_most_harmless_are_chosen(harmful: set[str]) -> None:
    def worst(chosen: Sequence[str]) -> float:
        return 0.5 if harmful & set(chosen) else 1 - 0.0001 * len(chosen)

    assert set(choose(list("abcde"), worst, 0.999)) == set("abcde") - harmful
