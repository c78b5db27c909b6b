"""The sheet of what codes mean: each row holds pictures that share a code."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export import Repository
from export.__main__ import main
from export.bundle import Bundle
from export.contact_sheet import LABEL, TILE
from export.manifest import Graph, Manifest, Source, TensorSpec

SIZE = 8
COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}


def _write(file: Path, nodes: list[object], inputs: list[object], outputs: list[object]) -> None:
    weights = [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), file)


def _publish(repository: Repository, root: Path, name: str, graph: str) -> Bundle:
    """An encoder whose features are the mean colour; a tokenizer that names the strongest."""
    folder = root / name
    folder.mkdir()
    value = helper.make_tensor_value_info
    if name == "image_encoder":
        nodes = [
            helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["values", "axes"], ["image_features"], keepdims=0),
        ]
        inputs = [value("pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])]
        outputs = [value("image_features", TensorProto.FLOAT, ["batch", 3])]
        specs = (TensorSpec("pixels", "uint8", ("batch", SIZE, SIZE, 3)),)
        gives: tuple[TensorSpec, ...] = (TensorSpec("image_features", "float32", ("batch", 3)),)
        metadata: dict[str, object] = {}
    else:
        nodes = [
            helper.make_node("ArgMax", ["features"], ["index"], axis=1, keepdims=1),
            helper.make_node("Cast", ["index"], ["codes"], to=TensorProto.INT32),
            helper.make_node("ReduceMax", ["features"], ["top"], keepdims=1),
            helper.make_node("Sub", ["features", "top"], ["margin"]),
        ]
        inputs = [value("features", TensorProto.FLOAT, ["batch", 3])]
        outputs = [
            value("codes", TensorProto.INT32, ["batch", 1]),
            value("margin", TensorProto.FLOAT, ["batch", 3]),
        ]
        specs = (TensorSpec("features", "float32", ("batch", 3)),)
        gives = (
            TensorSpec("codes", "int32", ("batch", 1)),
            TensorSpec("margin", "float32", ("batch", 3)),
        )
        metadata = {"levels": ["colour"], "sizes": [3], "encoders": {"image_encoder": "sha256:01"}}
    _write(folder / f"{graph}.onnx", nodes, inputs, outputs)
    manifest = Manifest(
        name=name,
        kind=name,
        precision="fp32",
        graphs={graph: Graph(f"{graph}.onnx", specs, gives)},
        source=Source("test", "sha256:01"),
        metadata=metadata,
    )
    return repository.publish(Bundle.draft(folder, manifest))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repository")
    _publish(made, tmp_path, "image_encoder", "model")
    _publish(made, tmp_path, "semantic_id", "encode")
    photos = tmp_path / "photos"
    for count, (name, colour) in enumerate(COLOURS.items(), 2):
        (photos / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (20, 12), colour).save(photos / name / f"{number}.png")
    return made


def test_rows_share_a_code(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(Path(repository.root) / "semantic_id" / "1")
    sheet = tmp_path / "out" / "sheet.png"
    samples = ["--samples", str(tmp_path / "photos"), "--sheet", str(sheet)]
    assert main(["inspect", bundle, *samples]) == 0
    assert "9 pictures in 3 of 3 entries of colour" in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.size[1] == 3 * TILE
        rows = [
            [
                image.getpixel((LABEL + column * TILE + TILE // 2, row * TILE + TILE // 2))
                for column in range(5)
            ]
            for row in range(3)
        ]
    # The most frequent first: four blue, three green, two red.
    expected = [("blue", 4), ("green", 3), ("red", 2)]
    for row, (name, count) in zip(rows, expected, strict=True):
        assert row == [COLOURS[name]] * count + [(255, 255, 255)] * (5 - count)


def test_what_no_sheet_can_be_drawn_of(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(repository.root)
    samples = ["--samples", str(tmp_path / "photos")]
    assert main(["inspect", str(root / "image_encoder" / "1"), *samples]) == 2
    assert "is drawn of a semantic_id bundle" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    tokenizer = str(root / "semantic_id" / "1")
    assert main(["inspect", tokenizer, "--samples", str(tmp_path / "empty")]) == 2
    assert "there is no picture" in capsys.readouterr().err
    (tmp_path / "photos" / "red" / "0.png").write_bytes(b"no picture")
    assert main(["inspect", tokenizer, *samples]) == 2
    assert "cannot be read" in capsys.readouterr().err
