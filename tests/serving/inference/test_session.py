"""Sessions compute what the graph says, with the device and threads that were asked for."""

from pathlib import Path

import numpy as np
import pytest

from export import Repository
from export.manifest import Graph, TensorSpec
from serving.errors import ConfigurationError
from serving.session import (
    RefusedInputsError,
    Runtime,
    available_cores,
    batch_axis,
    choose_provider,
    open_session,
    warm_up,
)


def test_a_session_computes_its_graph(bundles: Repository) -> None:
    session = open_session(bundles.open("text_encoder"), "model", Runtime("cpu", 1))
    ids = np.asarray([[1, 2], [1, 3]])
    out = session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert set(out) == {"text_features"}
    assert out["text_features"].dtype == np.float32
    assert np.allclose(np.linalg.norm(out["text_features"], axis=1), 1)
    assert session.provider == "CPUExecutionProvider"
    session.close()


def test_each_graph_of_a_bundle_opens(bundles: Repository) -> None:
    bundle = bundles.open("semantic_id")
    codes = open_session(bundle, "encode").run({"features": np.eye(12, dtype=np.float32)})["codes"]
    assert codes.shape == (12, 6)
    back = open_session(bundle, "decode").run({"codes": codes})["features_hat"]
    assert back.shape == (12, 12)


def test_values_that_cannot_be_computed_are_the_callers_error(bundles: Repository) -> None:
    session = open_session(bundles.open("text_encoder"), "model")
    ids = np.asarray([[999]])
    with pytest.raises(RefusedInputsError, match="could not compute"):
        session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    cpu = ["CPUExecutionProvider"]
    assert choose_provider("auto", cpu) == "CPUExecutionProvider"
    assert choose_provider("auto", ["CUDAExecutionProvider", *cpu]) == "CUDAExecutionProvider"
    assert choose_provider("cpu", ["CUDAExecutionProvider", *cpu]) == "CPUExecutionProvider"
    with pytest.raises(ConfigurationError, match=r"tessera\[gpu\]"):
        choose_provider("gpu", cpu)


def test_a_file_that_is_no_graph_is_named(bundles: Repository, tmp_path: Path) -> None:
    from serving.session import OnnxSession

    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    graph = bundles.open("fixed").manifest.graphs["model"]
    with pytest.raises(ConfigurationError, match=r"model\.onnx"):
        OnnxSession(path, graph, "CPUExecutionProvider", 1)


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", None), ("150000 100000", 1)])
def test_cores_follow_the_cgroup(tmp_path: Path, quota: str, cores: int | None) -> None:
    whole = available_cores(tmp_path)
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cores(tmp_path) == (whole if cores is None else cores)


def test_cores_follow_the_first_cgroup_version(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("20000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == 1


def test_warm_up_runs_every_bucket(bundles: Repository) -> None:
    seconds = warm_up(open_session(bundles.open("image_encoder"), "model"), (1, 4, 8))
    assert set(seconds) == {1, 4, 8}
    assert min(seconds.values()) > 0
    assert set(warm_up(open_session(bundles.open("fixed"), "model"), (1, 4))) == {1}
    assert set(warm_up(open_session(bundles.open("every_type"), "model"), (2,))) == {2}


def test_the_batch_axis_leads_all_tensors() -> None:
    rows, other = TensorSpec("x", "float32", ("B", 3)), TensorSpec("y", "float32", ("N",))
    assert batch_axis(Graph("f", (rows,), (rows,))) == "B"
    assert batch_axis(Graph("f", (rows, other), (rows,))) is None
    assert batch_axis(Graph("f", (rows,), (TensorSpec("s", "float32", ()),))) is None
    assert batch_axis(Graph("f", (TensorSpec("x", "float32", (3,)),), ())) is None
