"""Graphs from torch: dynamic where they say so, with names of their own, or refused."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from export import parity
from export.errors import GraphError
from export.manifest import TensorSpec
from export.onnx_graph import OPSET, write_graph
from export.sources.source import GraphSource


def _graph(module: torch.nn.Module, *outputs: str, width: int = 4) -> GraphSource:
    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        return (torch.randn((sizes["batch"], sizes["sequence"], 4), generator=generator),)

    return GraphSource(
        module.eval(),
        (TensorSpec("tokens", "float32", ("batch", "sequence", 4)),),
        tuple(TensorSpec(name, "float32", ("batch", width)) for name in outputs),
        sample,
        {"batch": (1, 3, 8), "sequence": (2, 9)},
    )


class Colliding(torch.nn.Module):
    """Has a parameter, a module and inner values called like its own output and input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.add = torch.nn.Parameter(torch.randn(4))

    def forward(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.linear(embedding) + self.add
        mean = (tokens + 1).mean(1)
        return mean + self.add, mean


@pytest.mark.parametrize("names", [("add", "mean"), ("add_1", "linear"), ("mean", "add")])
def test_names_never_collide(tmp_path: Path, names: tuple[str, str]) -> None:
    graph = _graph(Colliding(), *names)
    file = tmp_path / "model.onnx"
    assert write_graph(graph, file) == OPSET
    session = parity.open_session(file)
    assert [value.name for value in session.get_outputs()] == list(names)
    figures = parity.measure("model", graph, file)
    assert [figure.output for figure in figures] == list(names)
    assert not parity.failures(figures, "fp32")


def test_axes_are_dynamic_and_keep_their_names(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    write_graph(_graph(Colliding(), "y", "z"), file)
    session = parity.open_session(file)
    assert session.get_inputs()[0].shape == ["batch", "sequence", 4]
    for batch, sequence in ((1, 1), (1, 50), (3, 2), (8, 7)):
        tokens = np.ones((batch, sequence, 4), np.float32)
        assert session.run(["y"], {"tokens": tokens})[0].shape == (batch, 4)


class Frozen(torch.nn.Module):
    """Only works at the length it was made for, as models with learned positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = torch.nn.Parameter(torch.randn(1, 5, 4))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return (tokens + self.positions).mean(1)


class Specialised(torch.nn.Module):
    """Dynamic in torch; what is traced has the traced length baked in, and nobody says so."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            tokens = torch.nn.functional.pad(tokens, (0, 0, 0, 9))[:, :5]
        return tokens.sum(1)


def test_an_axis_that_cannot_be_dynamic_is_refused(tmp_path: Path) -> None:
    graph = _graph(Frozen(), "y")
    write_graph(graph, tmp_path / "model.onnx")  # this exporter says nothing
    with pytest.raises(GraphError, match="inputs should be"):
        parity.measure("model", graph, tmp_path / "model.onnx")


def test_an_axis_that_was_specialised_in_silence_is_found(tmp_path: Path) -> None:
    graph = _graph(Specialised(), "y")
    write_graph(graph, tmp_path / "model.onnx")
    assert parity.failures(parity.measure("model", graph, tmp_path / "model.onnx"), "fp32")


def test_a_source_that_fails_at_a_size_is_named(tmp_path: Path) -> None:
    write_graph(_graph(Specialised(), "y"), tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="the source fails at"):
        parity.measure("model", _graph(Frozen(), "y"), tmp_path / "model.onnx")


def test_a_graph_with_other_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="expected 1 inputs and 1 outputs, traced 1 and 2"):
        write_graph(_graph(Colliding(), "y"), tmp_path / "model.onnx")


def test_the_declared_shape_is_checked_against_what_comes_out(tmp_path: Path) -> None:
    graph = _graph(Colliding(), "y", "z", width=5)
    write_graph(graph, tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="outputs should be"):
        parity.measure("model", graph, tmp_path / "model.onnx")


def test_a_file_that_is_no_graph_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphError, match="does not load"):
        parity.open_session(tmp_path / "model.onnx")
