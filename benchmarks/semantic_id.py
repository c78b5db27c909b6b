"""How much meaning semantic IDs keep, beside their peers: `python -m benchmarks semantic_id`.

In: embeddings of items, their titles with `product` and `category`, labelled pairs. Products are
split; everything is learned on one side and judged on the other, where not said otherwise. Out:
every figure of a task as a loss against the raw features, with a 95% bootstrap interval whose upper
end is the claim.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.reference.errors import ReferenceModelError
from export.reference.progress import progress
from export.reference.runs import load_pairs
from export.reference.vectors import load_rows
from export.semantic_id import measures
from export.semantic_id.learning import Plan, learn
from export.semantic_id.measures import in_batches
from export.semantic_id.model import NAMES, SemanticId
from export.semantic_id.split import groups, share

from . import report
from .errors import BenchmarkError
from .semantic_id_peers import PEERS
from .semantic_id_speed import speed

_BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True)
class Items:
    """rows (n, D) unit; product, category (n,), category -1 where unknown; title (n,); pairs
    (m, 3); held: bool (n,), whole products."""

    rows: NDArray[np.float32]
    product: NDArray[np.int64]
    category: NDArray[np.int64]
    title: NDArray[np.int64]
    pairs: NDArray[np.int64]
    held: NDArray[np.bool_]


def read(embeddings: Path, items: Path, pairs: Path, seed: int) -> Items:
    """Read and split. Raises BenchmarkError when a file is not what it should be."""
    try:
        rows = load_rows(embeddings)
        labelled = load_pairs(pairs, len(rows))
        lines = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
        named = [(f"{x.get('source')}/{x['product']}", x["category"], x["title"]) for x in lines]
    except (ReferenceModelError, OSError, ValueError, KeyError) as error:
        raise BenchmarkError(f"cannot read the items: {error!r}") from error
    if len(named) != len(rows):
        raise BenchmarkError(f"expected {len(rows)} lines in {items}, found {len(named)}")
    product, category, title = (
        np.unique([each[i] for each in named], return_inverse=True)[1] for i in range(3)
    )
    category = np.where(np.array([bool(each[1]) for each in named]), category, -1)
    first = np.unique(product, return_index=True)[1][product]
    same = np.stack([np.arange(len(rows)), first, np.ones(len(rows), np.int64)], 1)
    group = groups(len(rows), np.concatenate([labelled, same]))
    return Items(rows, product, category, title, labelled, share(group, 0.2, seed))


def run(embeddings: Path, items: Path, pairs: Path, seed: int) -> dict[str, Any]:
    """Learn, judge, print tables. Raises BenchmarkError."""
    data = read(embeddings, items, pairs, seed)
    plan = Plan(seed=seed)
    results: dict[str, Any] = {"rows": len(data.rows), "held_out": int(data.held.sum())}
    found: dict[str, dict[str, Any]] = {}
    train = data.rows[~data.held]
    inner = _inner_pairs(data)
    for name, known in (("mmdict", None), ("mmdict + pairs", inner)):
        start = time.perf_counter()
        with progress(name, plan.steps) as advance:
            model, _ = learn(train, known, None, plan, advance)
        seconds = time.perf_counter() - start
        codes, hat = _through(model, data.rows)
        found[name] = judge(data, hat, codes, seed) | {"learned_s": round(seconds, 1)}
        found[name]["usage"] = measures.usage(codes, model.sizes)
        found[name]["ablations"] = ablations(model, data, codes)
        if known is None:
            results["retrained"] = retrained(data, plan)
            results["speed"] = speed(model, data.rows)
    for name, peer in PEERS.items():
        with progress(name, 1) as advance:
            codes, hat = peer(train, data.rows, seed)
            advance()
        found[name] = judge(data, hat, codes, seed)
    report.table("held-out products", [_row(name, each) for name, each in found.items()])
    return results | {"methods": found}


def _inner_pairs(data: Items) -> NDArray[np.int64]:
    place = np.cumsum(~data.held) - 1
    left, right, label = data.pairs.T
    known = ~data.held[left] & ~data.held[right]
    inner: NDArray[np.int64] = np.stack([place[left], place[right], label], 1)[known]
    return inner


def _through(model: SemanticId, rows: NDArray[np.float32]) -> tuple[Any, Any]:
    with torch.no_grad():
        codes = in_batches(torch.from_numpy(rows), model)
        return codes.numpy(), model.decode(codes).numpy()


def judge(
    data: Items, hat: NDArray[np.float32], codes: NDArray[np.int32] | None, seed: int
) -> dict[str, Any]:
    """Every figure of one method. hat: (n, D) of all items; codes (n, levels)."""
    hat = hat / np.linalg.norm(hat, axis=1, keepdims=True).clip(1e-12)
    held, mean = data.held, data.rows[~data.held].mean(0)
    figures: dict[str, Any] = {}
    for name, part in (("train", ~held), ("held_out", held)):
        error = ((hat[part] - data.rows[part]) ** 2).sum()
        spread = ((data.rows[part] - mean) ** 2).sum()
        figures[f"relative_mse_{name}"] = float(error / spread)
    chosen = np.random.default_rng(seed).permutation(int(held.sum()))[:1000]
    names = ("tau_100", "recall_10", "triplets")
    taken = measures.order_by_query(data.rows[held], hat[held], chosen)
    for name, values in zip(names, taken, strict=True):
        figures[name] = _mean(values, seed)
    figures["knn_loss"] = _votes(data, hat, held & (data.category >= 0), seed)
    figures["knn_loss_all_items"] = _votes(data, hat, data.category >= 0, seed)
    figures["pair_auc_loss"] = _pairs(data, hat, seed)
    if codes is not None:
        ids = measures.number_ids(codes)
        figures["harmful"] = float(measures.shares_an_id(ids, data.product).mean())
        figures["harmful_floor"] = float(measures.shares_an_id(data.title, data.product).mean())
    return figures


def _interval(count: int, of: Callable[[Any], float], seed: int) -> dict[str, float]:
    """A statistic of picked indices: its value and 95% bootstrap interval."""
    random = np.random.default_rng(seed)
    drawn = [of(random.integers(0, count, count)) for _ in range(_BOOTSTRAPS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": of(np.arange(count)), "low": float(low), "high": float(high)}


def _mean(values: NDArray[np.float64], seed: int) -> dict[str, float]:
    return _interval(len(values), lambda pick: float(values[pick].mean()), seed)


def _votes(
    data: Items, hat: NDArray[np.float32], part: NDArray[np.bool_], seed: int
) -> dict[str, float] | None:
    """Percent of the raw features' accuracy that is lost; five folds over labelled items."""
    if part.sum() < 100:
        return None
    label = np.unique(data.category[part], return_inverse=True)[1]
    fold = np.random.default_rng(seed).integers(5, size=int(part.sum()))
    before, after = (measures.neighbour_votes(side[part], label, fold) for side in (data.rows, hat))
    return _interval(
        len(label), lambda pick: float(100 * (1 - after[pick].mean() / before[pick].mean())), seed
    )


def _pairs(data: Items, hat: NDArray[np.float32], seed: int) -> dict[str, float] | None:
    left, right, label = data.pairs[data.held[data.pairs[:, 0]] & data.held[data.pairs[:, 1]]].T
    same = label == 1
    if not same.any() or same.all():
        return None
    scores = [(side[left] * side[right]).sum(1).astype(float) for side in (data.rows, hat)]

    def loss(pick: NDArray[np.int64]) -> float:
        before, after = (measures.auc(score[pick], same[pick]) for score in scores)
        return 100 * (1 - after / before)

    return _interval(len(label), loss, seed)


def ablations(model: SemanticId, data: Items, codes: NDArray[np.int32]) -> dict[str, Any]:
    """Order and error on held-out items when only some levels speak."""
    kept = {scale: [2 * i, 2 * i + 1] for i, scale in enumerate("SML")}
    kept |= {"centres": [0, 2, 4], "residuals": [1, 3, 5]}
    kept |= {f"without {scale}": [i for i in range(6) if NAMES[i][0] != scale] for scale in "SML"}
    held = torch.from_numpy(codes[data.held]).long()
    rows = data.rows[data.held]
    results = {}
    for name, levels in kept.items():
        with torch.no_grad():
            hat = model.mean + sum(model.values(i)[held[:, i]] for i in levels)
            hat = torch.nn.functional.normalize(hat, dim=1)
        error = measures.relative_error(torch.from_numpy(rows), hat, model.mean)
        results[name] = measures.order(rows, hat.numpy()) | {"relative_mse": round(error, 4)}
    return results


def retrained(data: Items, plan: Plan) -> dict[str, Any]:
    """What a retraining from the tokenizer before changes when a tenth of the rows is new."""
    train = data.rows[~data.held]
    before = train[: round(len(train) / 1.1)]
    with progress("retrain", 2 * plan.steps) as advance:
        first, _ = learn(before, None, None, plan, advance)
        again, figures = learn(train, None, first, plan, advance)
    churn = figures["churn"]
    quality = {}
    for name, each in (("before", first), ("after", again)):
        _, hat = _through(each, data.rows[data.held])
        quality[name] = measures.order(data.rows[data.held], hat)
    return {"churn": churn, **quality}


def _row(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "mse": figures["relative_mse_held_out"]}
    for each in ("tau_100", "recall_10", "knn_loss", "knn_loss_all_items", "pair_auc_loss"):
        row[each] = figures[each]["value"] if figures[each] else None
    return row | {each: figures.get(each) for each in ("harmful", "harmful_floor")}
