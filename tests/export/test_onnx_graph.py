"""Graphs from torch: dynamic where they say so, with names of their own, or refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import Repository, parity
from export.errors import GraphError
from export.manifest import Source, TensorSpec
from export.onnx_graph import OPSET, write_graph
from export.pipeline import Wanted, publish
from export.sources.source import GraphSource, ModelSource


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
    assert write_graph(graph, file).opset == OPSET
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


class Attending(torch.nn.Module):
    """Self-attention with heads, as transformers writes it; or by hand, as no fusion knows it."""

    def __init__(self, *, by_hand: bool = False) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(4, 4) for _ in range(3))
        self.by_hand = by_hand

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, length, _ = tokens.shape
        q, k, v = (
            layer(tokens).view(batch, length, 2, 2).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.by_hand:
            heads = (q @ k.transpose(2, 3)).softmax(-1) @ v
        else:
            heads = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return heads.transpose(1, 2).reshape(batch, length, 4).mean(1)


def test_attention_becomes_one_node_without_splitting_heads(tmp_path: Path) -> None:
    graph = replace(_graph(Attending(), "y"), attention=1)
    file = tmp_path / "model.onnx"
    assert write_graph(graph, file).attention == 1
    operators = [node.op_type for node in onnx.load(file).graph.node]
    assert operators.count("Attention") == 1
    assert "Transpose" not in operators
    assert "Softmax" not in operators
    assert not parity.failures(parity.measure("model", graph, file), "fp32")


def test_attention_that_is_not_one_node_is_an_error(tmp_path: Path) -> None:
    graph = replace(_graph(Attending(by_hand=True), "y"), attention=1)
    with pytest.raises(GraphError, match="expected 1 layers' attention as a node each, found 0"):
        write_graph(graph, tmp_path / "model.onnx")


def test_no_path_of_this_machine_is_in_the_file(tmp_path: Path) -> None:
    write_graph(_graph(Attending(), "y"), tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    assert b"test_onnx_graph.py" not in data
    assert str(Path(__file__).parent).encode() not in data


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_of_large_graphs_lie_beside_them(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.onnx_graph.EXTERNAL_BYTES", 1000)

    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 400)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.layer(tokens).mean(1)
            return y

    source = ModelSource(
        "ranker", Source("test", "sha256:00"), {"model": _graph(Wide(), "y", width=400)}
    )
    wanted = Wanted(precision)
    bundle = publish(source, Repository(tmp_path / "repo"), "wide", lambda _: None, wanted)
    if precision == "fp32":
        assert set(bundle.manifest.files) == {"model.onnx", "model.onnx.data"}
        assert bundle.manifest.files["model.onnx.data"].bytes >= 4 * 4 * 400
    else:
        assert set(bundle.manifest.files) == {"model.onnx"}  # small enough again
    (y,) = parity.open_session(bundle.path()).run(None, {"tokens": np.ones((2, 3, 4), np.float32)})
    assert y.shape == (2, 400)
