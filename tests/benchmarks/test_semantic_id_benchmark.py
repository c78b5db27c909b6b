"""The semantic-ID benchmark on generated items: it ends, and it judges on what was not learned."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import semantic_id, semantic_id_speed
from benchmarks.__main__ import main
from benchmarks.errors import BenchmarkError
from benchmarks.semantic_id_items import Items, read
from benchmarks.semantic_id_judge import judge
from benchmarks.semantic_id_peers import PEERS
from export.semantic_id.learning import Plan
from export.semantic_id.tuning import Tuning


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """900 items of 450 products in 6 categories; two of every product are nearly alike."""
    folder = tmp_path_factory.mktemp("items")
    rng = np.random.default_rng(5)
    product = np.repeat(np.arange(450), 2)
    category = product % 6
    rows = 2 * rng.normal(size=(6, 48))[category] + rng.normal(size=(450, 48))[product]
    rows += 0.3 * rng.normal(size=rows.shape)
    np.save(folder / "rows.npy", rows.astype(np.float16))
    left = np.arange(0, 900, 2)
    same = np.stack([left, left + 1, np.ones(450, np.int64)], 1)
    other = np.stack([left, (left + 12) % 900, np.zeros(450, np.int64)], 1)
    np.save(folder / "pairs.npy", np.concatenate([same, other]))
    lines = [
        {"title": f"item\u2028{i}", "source": "made", "product": int(p), "category": f"c{c}"}
        for i, (p, c) in enumerate(zip(product, category, strict=True))
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "items.jsonl").write_text(text, encoding="utf-8")
    return {name: folder / name for name in ("rows.npy", "items.jsonl", "pairs.npy")}


def items(files: dict[str, Path], scale: float = 1.0) -> Items:
    return read(files["rows.npy"], files["items.jsonl"], files["pairs.npy"], scale, seed=1)


def test_products_are_never_on_both_sides(files: dict[str, Path]) -> None:
    for scale, rows in ((1.0, 900), (0.5, 450)):
        data = items(files, scale)
        assert rows * 0.9 <= len(data.rows) <= rows
        assert not set(data.product[data.held]) & set(data.product[~data.held])
        assert 0.15 < data.held.mean() <= 0.2
        same = data.pairs[data.pairs[:, 2] == 1]
        assert np.array_equal(data.product[same[:, 0]], data.product[same[:, 1]])
        left, right, _ = data.train_pairs.T
        cosine = (data.train[left] * data.train[right]).sum(1)
        assert cosine[data.train_pairs[:, 2] == 1].min() > 0.7


def test_perfect_features_lose_nothing_and_noise_loses_much(files: dict[str, Path]) -> None:
    data = items(files)
    own = np.arange(len(data.rows), dtype=np.int32)[:, None]
    kept = judge(data, 3 * data.rows, own, seed=1)
    assert kept["held_out"]["tau_100"]["value"] == pytest.approx(1, abs=1e-3)
    for part, name in (
        ("held_out", "knn_loss"),
        ("held_out", "head_loss"),
        ("held_out", "pair_auc_loss"),
        ("all_items", "knn_loss"),
        ("all_items", "harmful"),
        ("all_items", "harmful_floor"),
    ):
        assert kept[part][name]["value"] == pytest.approx(0, abs=0.05), name
    rng = np.random.default_rng(0)
    noise = rng.normal(size=data.rows.shape).astype(np.float32)
    lost = judge(data, noise, np.zeros_like(own), seed=1)
    assert lost["all_items"]["harmful"]["value"] == 1
    assert lost["held_out"]["relative_mse"]["value"] > 1
    for name in ("knn_loss", "head_loss"):
        figure = lost["held_out"][name]
        assert 50 < figure["low"] <= figure["value"] <= figure["high"], name


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Steps this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_it_ends_with_one_line(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = partial(Plan, latent=16, metric_steps=20, tuning=Tuning(rounds=1, steps=2))
    peers = {name: PEERS[name] for name in ("residual k-means, equal sizes",)}
    monkeypatch.setattr(semantic_id, "Plan", short)
    monkeypatch.setattr(semantic_id, "PEERS", peers)
    monkeypatch.setattr(semantic_id_speed, "_ROWS", 3000)
    monkeypatch.setattr(semantic_id_speed, "_SINGLE", 200)
    argv = ["--embeddings", files["rows.npy"], "--items", files["items.jsonl"]]
    assert main(["semantic_id", *map(str, argv), "--pairs", str(files["pairs.npy"])]) == 0
    output = capsys.readouterr()
    assert output.out.count("\n") == 1
    line = json.loads(output.out)
    assert line["benchmark"] == "semantic_id"
    assert line["speed"]["flips"] == 0
    assert line["sizes"] == [8, 8, 32, 32, 128, 128]
    assert set(line["retrained"]["churn_train"]) == {"first_code", "full_id"}
    methods = line["methods"]
    assert set(methods) == {"mmdict", "mmdict + pairs", *peers}
    for name, method in methods.items():
        figure = method["held_out"]["recall_10"]
        assert 0 < figure["low"] <= figure["value"] <= figure["high"] <= 1, name
    assert set(methods["mmdict"]["ablations"]) >= {"S", "M", "L", "centres", "residuals"}
    assert "held-out products" in output.err


def test_items_that_do_not_fit_are_refused(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.jsonl"
    lines = files["items.jsonl"].read_text(encoding="utf-8").split("\n")
    for text, said in (
        ("\n".join(lines[:5]), "a line for each of 900 embeddings, found 5"),
        ('{"title": "no product"}\n', "'product'"),
        ("[1]\n", "a line"),
    ):
        short.write_text(text, encoding="utf-8")
        with pytest.raises(BenchmarkError, match=said):
            read(files["rows.npy"], short, files["pairs.npy"], 1.0, 1)
    with pytest.raises(BenchmarkError, match="raise --scale"):
        items(files, 0.1)
    argv = ["--embeddings", files["rows.npy"], "--items", short, "--pairs", files["pairs.npy"]]
    assert main(["semantic_id", "--scale", "2", *map(str, argv)]) == 1
    assert "--scale" in capsys.readouterr().err
