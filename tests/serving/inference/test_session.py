"""Sessions compute what the graph says, with the device and threads that were asked for."""

from pathlib import Path

import numpy as np
import pytest

from export import Repository
from export.manifest import Graph, TensorSpec
from serving.cores import available_cores, plan
from serving.errors import ConfigurationError, RefusedInputsError
from serving.graph_session import Bound, GraphSession
from serving.providers import (
    CPU,
    CUDA,
    TENSORRT,
    choose_provider,
    gpu_present,
    tensorrt_options,
    with_options,
)
from serving.session import Runtime, open_session, warm_cost, warm_up
from serving.tensors import batch_axis


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
    assert choose_provider("auto", [CPU], gpu=True) == CPU
    assert choose_provider("auto", [CUDA, CPU], gpu=True) == CUDA
    assert choose_provider("auto", [CUDA, CPU], gpu=False) == CPU
    assert choose_provider("cpu", [CUDA, CPU], gpu=True) == CPU
    assert choose_provider("tensorrt", [TENSORRT, CUDA, CPU], gpu=True) == TENSORRT
    with pytest.raises(ConfigurationError, match=r"tessera\[gpu\]"):
        choose_provider("gpu", [CPU], gpu=True)
    with pytest.raises(ConfigurationError, match="found no /dev/nvidia"):
        choose_provider("gpu", [CUDA, CPU], gpu=False)
    with pytest.raises(ConfigurationError, match="expected the provider Tensorrt"):
        choose_provider("tensorrt", [CUDA, CPU], gpu=True)


def test_a_gpu_is_seen_by_its_device(tmp_path: Path) -> None:
    assert not gpu_present(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not gpu_present(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert gpu_present(tmp_path)


def test_this_runtime_refuses_a_gpu_that_it_cannot_use(bundles: Repository) -> None:
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this runtime was built for CUDA")
    with pytest.raises(ConfigurationError, match="expected the provider CUDA"):
        open_session(bundles.open("fixed"), "model", Runtime("gpu"))
    # Whatever a machine says that it has: the session must have it too.
    bundle = bundles.open("fixed")
    graph = bundle.manifest.graphs["model"]
    with (
        pytest.warns(UserWarning, match="CUDA"),
        pytest.raises(ConfigurationError, match="expected CUDAExecutionProvider"),
    ):
        GraphSession(bundle.path("model"), graph, [(CUDA, {}), (CPU, {})], 1)


def test_the_provider_that_was_chosen_is_logged(
    bundles: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="tessera.session"):
        open_session(bundles.open("fixed"), "model", Runtime("cpu", 1)).close()
    (record,) = caplog.records
    fields: dict[str, object] = record.__dict__["fields"]
    assert (fields["provider"], fields["threads"], fields["model"]) == (CPU, 1, "fixed")


def test_tensorrt_is_told_all_shapes_before_the_first(bundles: Repository, tmp_path: Path) -> None:
    text = bundles.open("text_encoder").manifest.graphs["model"]
    options = tensorrt_options(text, 32, tmp_path / "engines")
    shapes = {kind: options[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")}
    assert shapes == {
        "min": "input_ids:1x1,attention_mask:1x1",
        "opt": "input_ids:16x64,attention_mask:16x64",
        "max": "input_ids:32x512,attention_mask:32x512",
    }
    assert options["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert (tmp_path / "engines").stat().st_mode & 0o077 == 0
    fixed = bundles.open("fixed").manifest.graphs["model"]
    assert not any("profile" in name for name in tensorrt_options(fixed, 32, None))
    chain = with_options(TENSORRT, text, rows=8, engines=None)
    assert [name for name, _ in chain] == [TENSORRT, CUDA, CPU]
    assert with_options(CPU, text, rows=8, engines=None) == [(CPU, {})]


def test_bound_buffers_compute_the_same_again_and_again(bundles: Repository) -> None:
    """The path of GPUs, on this device: buffers of a shape are reused with new values."""
    import onnxruntime

    bundle = bundles.open("image_encoder")
    plain = open_session(bundle, "model", Runtime("cpu", 1))
    bound = Bound(onnxruntime.InferenceSession(str(bundle.path("model"))), "cpu")
    rng = np.random.default_rng(0)
    found = []
    for rows in (1, 3, 1, 3, 3):
        inputs = {"pixels": rng.integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8)[:, ::-1]}
        expected = plain.run(inputs)["image_features"]
        found.append((bound.run(inputs)["image_features"], expected))
    for out, expected in found:  # an answer is not overwritten by a later one
        assert np.allclose(out, expected, atol=1e-6)


def test_a_file_that_is_no_graph_is_named(bundles: Repository, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    graph = bundles.open("fixed").manifest.graphs["model"]
    with pytest.raises(ConfigurationError, match=r"model\.onnx"):
        GraphSession(path, graph, [(CPU, {})], 1)


NOWHERE = Path("/nonexistent")


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", None), ("150000 100000", 1)])
def test_cores_follow_the_cgroup(tmp_path: Path, quota: str, cores: int | None) -> None:
    whole = available_cores(tmp_path, NOWHERE)
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cores(tmp_path, NOWHERE) == (whole if cores is None else cores)


def test_cores_follow_the_first_cgroup_version(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("20000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path, NOWHERE) == 1


@pytest.mark.parametrize(
    ("line", "folder"),
    [("0::/pods/one", "pods/one"), ("4:cpu,cpuacct:/pods/one", "cpu/pods/one")],
)
def test_cores_follow_the_process_to_its_own_cgroup(tmp_path: Path, line: str, folder: str) -> None:
    own = tmp_path / "own"
    own.write_text(f"7:memory:/elsewhere\n{line}\n")
    (tmp_path / folder).mkdir(parents=True)
    whole = available_cores(tmp_path, own)
    (tmp_path / folder).parent.joinpath("cpu.max").write_text("100000 100000")
    (tmp_path / folder / "cpu.max").write_text("max 100000")
    assert available_cores(tmp_path, own) == 1  # a parent's limit holds too
    assert whole >= 1


def test_warm_up_runs_every_bucket(bundles: Repository) -> None:
    seconds = warm_up(open_session(bundles.open("image_encoder"), "model"), (1, 4, 8))
    assert set(seconds) == {1, 4, 8}
    assert min(seconds.values()) > 0
    assert set(warm_up(open_session(bundles.open("fixed"), "model"), (1, 4))) == {1}
    assert set(warm_up(open_session(bundles.open("every_type"), "model"), (2,))) == {2}
    costs = {
        n: warm_cost(open_session(bundles.open(n), "model")) for n in ("fixed", "text_encoder")
    }
    assert costs == {"fixed": 1, "text_encoder": 16}


def test_the_batch_axis_leads_all_tensors() -> None:
    rows, other = TensorSpec("x", "float32", ("B", 3)), TensorSpec("y", "float32", ("N",))
    assert batch_axis(Graph("f", (rows,), (rows,))) == "B"
    assert batch_axis(Graph("f", (rows, other), (rows,))) is None
    assert batch_axis(Graph("f", (rows,), (TensorSpec("s", "float32", ()),))) is None
    assert batch_axis(Graph("f", (TensorSpec("x", "float32", (3,)),), ())) is None


def test_batches_beyond_the_usual_are_for_models_that_are_quick(
    bundles: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = open_session(bundles.open("image_encoder"), "model")
    monkeypatch.setattr("serving.session.BRIEF_S", 60.0)
    assert set(warm_up(real, (1, 32, 64, 256))) == {1, 32, 64, 256}
    monkeypatch.setattr("serving.session.BRIEF_S", 0.0)
    assert set(warm_up(real, (1, 32, 64, 256))) == {1, 32}


@pytest.mark.parametrize(
    ("cores", "asked", "threads", "at_once"),
    [
        (1, None, 1, 1),
        (2, None, 1, 2),
        (3, None, 1, 2),
        (16, None, 8, 2),
        (4, 4, 4, 1),
        (4, 2, 2, 2),
    ],
)
def test_two_runs_share_the_cores_unless_one_is_to_have_them(
    cores: int, asked: int | None, threads: int, at_once: int
) -> None:
    assert plan(cores, asked) == (threads, at_once)
