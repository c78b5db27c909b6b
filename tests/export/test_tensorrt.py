"""TensorRT plans, without TensorRT: every call is checked against the real wheel's signatures.

The double refuses any name and any argument that the wheel does not have, and computes with ONNX
Runtime, so that what is written for TensorRT runs from end to end. On a machine with the hardware,
`pytest -m gpu` runs the real one.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from export import Repository, shipped, tensorrt_engine, tensorrt_plan
from export.__main__ import main
from export.bundle import Bundle
from export.errors import GraphError, MissingExtraError, ParityError, SourceError
from export.manifest import Graph, Manifest, Source, TensorSpec
from export.pipeline import Wanted, publish
from export.tensorrt_plan import BuildOptions, build, parse_profiles
from export.tensorrt_tag import Hardware, has_plans, plan_folder
from serving import tensorrt_session
from serving.errors import ConfigurationError, RefusedInputsError
from serving.session import Runtime, open_session
from serving.tensorrt_session import open_plan
from tests.export.tensorrt_double import API, Builder, Context, Double, Members, Parser, at_address

GPU = Hardware("Test GPU", "9.0")


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Double:
    double = Double()
    severity = Members(API["enums"]["Logger.Severity"])
    monkeypatch.setattr(Double.Logger, "Severity", severity, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", double)  # type: ignore[arg-type]
    monkeypatch.setattr(tensorrt_engine, "DEVICE", "cpu")
    for module in (tensorrt_plan, tensorrt_session):
        monkeypatch.setattr(module, "this_hardware", lambda: GPU)
    return double


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """y = 2 x + 1, in a repository."""
    return _publish(tmp_path, "float32")


def _publish(root: Path, kind: str, precision: str = "fp32") -> Bundle:
    import onnx
    from onnx import helper, numpy_helper

    number = {"float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE}[kind]
    tensors = [helper.make_tensor_value_info(n, number, ["batch", 4]) for n in ("x", "y")]
    weights = [numpy_helper.from_array(np.full(4, v, kind), n) for n, v in (("two", 2), ("one", 1))]
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["z"]),
        helper.make_node("Add", ["z", "one"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], weights)
    folder = root / "draft"
    folder.mkdir()
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "model.onnx")
    specs = [(TensorSpec(n, kind, ("batch", 4)),) for n in ("x", "y")]
    manifest = Manifest(
        name="doubler",
        kind="ranker",
        precision=precision,
        graphs={"model": Graph("model.onnx", *specs)},
        source=Source("test", "sha256:00"),
    )
    return Repository(root / "repository").publish(Bundle.draft(folder, manifest))


OPTIONS = BuildOptions({"batch": (1, 4, 8)})


def test_a_plan_is_built_tagged_and_served(tensorrt: Double, bundle: Bundle) -> None:
    (file,) = build(bundle, OPTIONS, lambda _: None)
    assert file.name == "model.trt11.4.0.106.sm9.0.test-gpu.plan"
    assert file.parent == plan_folder(bundle) == bundle.directory.parent / ".plans" / "1"
    tag = json.loads(file.with_suffix(".json").read_text())
    assert tag["hardware"] == {"name": "Test GPU", "capability": "9.0"}
    assert tag["profiles"] == {"batch": [1, 4, 8]}
    assert tag["bundle_hash"] == bundle.bundle_hash
    session = open_plan(bundle, "model")
    assert session is not None
    assert session.provider == "TensorRT"
    for rows in (1, 8, 19):  # the last in parts: the plan takes eight
        x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
        np.testing.assert_allclose(session.run({"x": x})["y"], 2 * x + 1, rtol=1e-6)
    with pytest.raises(RefusedInputsError, match="the plan takes"):
        session.run({"x": np.zeros((0, 4), np.float32)})
    session.close()
    # Sessions prefer a plan, unless the CPU was asked for.
    assert open_session(bundle, "model").provider == "TensorRT"
    assert open_session(bundle, "model", Runtime("cpu")).provider == "CPUExecutionProvider"
    # The bundle is as it was, and the next build starts from the timings of this one.
    assert Repository(bundle.directory.parents[1]).open("doubler", full=True) == bundle
    timings = file.parent.parent / "timing.trt11.4.0.106.sm9.0.cache"
    assert timings.read_bytes() == b"+"
    build(bundle, OPTIONS, lambda _: None)
    assert timings.read_bytes() == b"++"


def test_a_plan_that_must_not_be_loaded(
    tensorrt: Double, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_plan(bundle, "model") is None
    (file,) = build(bundle, OPTIONS, lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(tensorrt_session, "this_hardware", lambda: Hardware("Other", "8.0"))
        assert open_plan(bundle, "model") is None
    tag_file = file.with_suffix(".json")
    tag = tag_file.read_text()
    tag_file.write_text(tag.replace(bundle.bundle_hash, "0" * 64))
    with pytest.raises(ConfigurationError, match="another bundle"):
        open_plan(bundle, "model")
    tag_file.write_text(tag)
    plan = file.read_bytes()
    file.write_bytes(plan[:-1] + b" ")
    with pytest.raises(ConfigurationError, match="expected SHA-256"):
        open_plan(bundle, "model")
    file.write_bytes(plan)
    tag_file.unlink()
    with pytest.raises(ConfigurationError, match="build the plan again"):
        open_plan(bundle, "model")


def test_a_plan_that_computes_something_else_gets_no_tag(
    tensorrt: Double, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Context.execute_async_v3

    def wrong(self: Context, stream_handle: int) -> bool:
        execute(self, stream_handle)
        shape = self.get_tensor_shape("y")
        at_address(self.own[2]["y"], shape)[...] *= -1
        return True

    monkeypatch.setattr(Context, "execute_async_v3", wrong)
    with pytest.raises(ParityError, match="cosine"):
        build(bundle, OPTIONS, lambda _: None)
    assert not has_plans(bundle, "model")


def test_what_cannot_be_built_is_said(
    tensorrt: Double, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Parser, "parse_from_file", lambda self, model: False)
    with pytest.raises(GraphError, match="operator of another world"):
        build(bundle, OPTIONS, lambda _: None)
    (tmp_path / "double").mkdir()
    with pytest.raises(GraphError, match="float64"):
        build(_publish(tmp_path / "double", "float64"), OPTIONS, lambda _: None)
    (tmp_path / "int8").mkdir()
    with pytest.raises(GraphError, match="fp16 bundle"):
        build(_publish(tmp_path / "int8", "float32", "int8"), OPTIONS, lambda _: None)
    for text in ("batch", "batch=1,2", "batch=4,2,8", "=1,2,3", "batch=0,1,2", "batch=a,b,c"):
        with pytest.raises(SourceError, match="expected AXIS"):
            parse_profiles([text])


def test_without_tensorrt_the_extra_is_named(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["tensorrt", str(bundle.directory)]) == 2
    assert "tessera[gpu]" in capsys.readouterr().err
    assert main(["tensorrt", str(bundle.directory), "--dry-run"]) == 0
    assert "'batch': (1, 8, 64)" in capsys.readouterr().out
    # Plans that others built do not keep this machine from serving with ONNX Runtime.
    folder = plan_folder(bundle)
    folder.mkdir(parents=True)
    (folder / "model.trt11.sm9.0.gpu.plan").write_bytes(b"x")
    assert open_plan(bundle, "model") is None
    with pytest.raises(MissingExtraError):
        build(bundle, OPTIONS, lambda _: None)


def test_the_double_refuses_what_the_wheel_has_not(tensorrt: Double) -> None:
    builder = Builder("Builder", own={})
    with pytest.raises(AssertionError, match=r"no Builder\.build_engine"):
        builder.build_engine()
    with pytest.raises(AssertionError, match="no such call"):
        builder.create_network(1, 2)
    with pytest.raises(AssertionError, match="has no FP16"):
        _ = tensorrt.BuilderFlag.FP16


@pytest.mark.gpu
def test_on_the_real_thing(bundle: Bundle) -> None:
    pytest.importorskip("tensorrt")
    (file,) = build(bundle, OPTIONS, lambda _: None)
    session = open_plan(bundle, "model")
    assert session is not None
    assert file.exists()
    x = np.random.default_rng(0).normal(size=(19, 4)).astype(np.float32)
    np.testing.assert_allclose(session.run({"x": x})["y"], 2 * x + 1, rtol=1e-5)
    session.close()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "precision"), [("image_encoder", "fp16"), ("text_encoder", "fp32")]
)
def test_a_tower_on_the_real_thing(name: str, precision: str, tmp_path: Path) -> None:
    """Plans of the reference towers: `build` compares them with their graphs at three sizes."""
    pytest.importorskip("tensorrt")
    source = shipped.read(name)
    made = publish(source, Repository(tmp_path), name, lambda _: None, Wanted(precision))
    (file,) = build(made, BuildOptions({}), lambda _: None)
    session = open_plan(made, "model")
    assert session is not None
    assert file.exists()
    session.close()
