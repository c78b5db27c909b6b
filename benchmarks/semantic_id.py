"""How much meaning semantic IDs keep, beside their peers: `python -m benchmarks semantic_id`.

In: embeddings of items, their titles with `product` and `category`, labelled pairs. Products are
split; everything is learned on one side. Out: of every method the figures of `semantic_id_judge`,
held-out ones apart from those over all items; usage, ablations, retraining, speed.
"""

import time
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.reference.progress import progress
from export.semantic_id import measures
from export.semantic_id.learning import Plan, learn
from export.semantic_id.measures import in_batches
from export.semantic_id.model import NAMES, SIZES, SemanticId
from export.semantic_id.split import share

from . import report
from .errors import BenchmarkError
from .semantic_id_items import Items, read
from .semantic_id_judge import judge
from .semantic_id_peers import PEERS
from .semantic_id_speed import speed

_HELD_RETRAIN = 0.08
_PARTS = {
    "held_out": "held-out products, never learned from",
    "all_items": "all items, learned and held out",
}


def run(embeddings: Path, items: Path, pairs: Path, scale: float, seed: int) -> dict[str, Any]:
    """Learn, judge, print tables. `scale`: the share of products that is taken.

    Raises: BenchmarkError.
    """
    if scale > 1:
        raise BenchmarkError(f"--scale: there are no more items than all; found {scale}")
    data = read(embeddings, items, pairs, scale, seed)
    plan = Plan(seed=seed, sizes=_sizes(len(data.train)))
    if plan.sizes != SIZES:
        report.say(f"{len(data.train)} rows to learn from: codebooks of {plan.sizes} entries")
    try:
        return _run(data, plan, scale)
    except ExportError as error:
        raise BenchmarkError(str(error)) from error


def _sizes(rows: int) -> tuple[int, ...]:
    """The published sizes, halved until each entry of the largest has four rows to learn from."""
    halvings = max(0, ceil(log2(4 * max(SIZES) / rows)))
    return tuple(max(8, size >> halvings) for size in SIZES)


def _run(data: Items, plan: Plan, scale: float) -> dict[str, Any]:
    results: dict[str, Any] = {
        "rows": len(data.rows),
        "rows_held_out": int(data.held.sum()),
        "sizes": plan.sizes,
        "figures_on": _PARTS | {"usage": _PARTS["all_items"], "ablations": _PARTS["held_out"]},
    }
    found: dict[str, dict[str, Any]] = {}
    for name, known in (("mmdict", None), ("mmdict + pairs", data.train_pairs)):
        start = time.perf_counter()
        with progress(name, plan.steps) as advance:
            model, _ = learn(data.train, known, None, plan, advance)
        seconds = round(time.perf_counter() - start, 1)
        codes, hat = _through(model, data.rows)
        found[name] = {
            **judge(data, hat, codes, plan.seed),
            "learned_s": seconds,
            "usage": measures.usage(codes, model.sizes),
            "ablations": ablations(model, data, codes),
        }
        if known is None:
            results["retrained"] = retrained(data, plan)
            with progress("encode", 3) as advance:
                results["speed"] = speed(model, data.rows, scale, advance)
    with progress("peers", len(PEERS)) as advance:
        for name, peer in PEERS.items():
            quantized = peer(data.train, data.rows, plan.sizes, plan.seed)
            advance(name)
            if quantized is None:
                report.say(f"{name}: left out, {data.rows.shape[1]} values do not divide so")
                continue
            codes, hat = quantized
            found[name] = judge(data, hat, codes, plan.seed)
    for part, about in _PARTS.items():
        report.table(about, [_row(name, each[part]) for name, each in found.items()])
    return results | {"methods": found}


def _through(
    model: SemanticId, rows: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    with torch.no_grad():
        codes = in_batches(torch.from_numpy(rows), model)
        return codes.numpy(), model.decode(codes).numpy()


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
    """What a retraining from the tokenizer before changes when a tenth of the rows is new.

    Fewer products are held out here, so that both trainings have rows enough. The new rows are the
    file's last: another source than the ones before, where files are sorted. Churn is counted on
    the rows learned from, the order before and after on held-out products.
    """
    held = share(data.group, _HELD_RETRAIN, plan.seed)
    train, judged = data.rows[~held], data.rows[held]
    with progress("retrain", 2 * plan.steps) as advance:
        first, _ = learn(train[: round(len(train) / 1.1)], None, None, plan, advance)
        again, figures = learn(train, None, first, plan, advance)
    quality = {
        name: measures.order(judged, _through(each, judged)[1])
        for name, each in (("before", first), ("after", again))
    }
    return {"rows_held_out": len(judged), "churn_train": figures["churn"], "held_out": quality}


def _row(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Value and interval of every figure, for people."""
    row: dict[str, Any] = {"method": name}
    for key, figure in figures.items():
        if isinstance(figure, dict):
            row[key] = f"{figure['value']:.3g} ({figure['low']:.3g}..{figure['high']:.3g})"
        else:
            row[key] = figure
    return row
