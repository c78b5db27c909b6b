"""A page of plots of a learned tokenizer: usage, order, tuning, what is near before and after.

In: the tokenizer, its rows and its report. Out: one PNG.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import MissingExtraError
from export.semantic_id.measures import in_batches
from export.semantic_id.model import NAMES, SemanticId

_ROWS = 2000


def draw(
    model: SemanticId, rows: NDArray[np.float32], report: dict[str, object], file: Path
) -> None:
    """Writes the page. Raises `MissingExtraError` without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib") from error
    chosen = np.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).astype(int)
    raw = torch.from_numpy(rows[chosen])
    with torch.no_grad():
        codes = in_batches(raw, model)
        hat = model.decode(codes).numpy()
    page = Figure(figsize=(16, 9), layout="constrained")
    FigureCanvasAgg(page)
    (usage, order, loss), (near, items, curve) = page.subplots(2, 3)
    for level, name in enumerate(NAMES):
        counts = np.sort(np.bincount(codes[:, level].numpy(), minlength=model.sizes[level]))[::-1]
        usage.plot(np.linspace(0, 1, len(counts)), counts.cumsum() / counts.sum(), label=name)
    usage.set(
        title=f"usage of {len(chosen)} rows", xlabel="entries, by use", ylabel="share of rows"
    )
    usage.legend()
    pair = np.random.default_rng(0).integers(len(chosen), size=(2, 4000))
    cosine = [(side[pair[0]] * side[pair[1]]).sum(1) for side in (raw.numpy(), hat)]
    order.scatter(*cosine, s=2)
    order.set(title="order", xlabel="cosine before", ylabel="cosine after")
    tuning = report.get("tuning")
    if isinstance(tuning, list):
        curve.plot([each["held_tau_100"] for each in tuning], marker="o")
        steps = [(number, each["loss"]) for number, each in enumerate(tuning) if "loss" in each]
        loss.plot(*np.array(steps or [(0, np.nan)]).T, marker="o")
    loss.set(title="joint tuning", xlabel="round", ylabel="loss")
    curve.set(title="joint tuning", xlabel="round", ylabel="held-out tau@100")
    similar = raw.numpy() @ raw.numpy().T
    after = hat @ hat.T
    np.fill_diagonal(similar, -2)
    np.fill_diagonal(after, -2)
    ranks = (after > np.take_along_axis(after, similar.argmax(1)[:, None], 1)).sum(1) + 1
    near.hist(np.log10(ranks), bins=40)
    near.set(title="where the nearest item before lies after", xlabel="log10 rank", ylabel="rows")
    _table(items, report.get("nearest_held_out"))
    page.savefig(file, dpi=90)


def _table(panel: Any, nearest: object) -> None:
    """Held-out rows by number, and whether what was near is near still (in bold letters: it is)."""
    panel.axis("off")
    panel.set(title="nearest held-out rows, before and after")
    for line, each in enumerate(nearest if isinstance(nearest, list) else []):
        for shift, name in ((0.0, "before"), (0.05, "after")):
            place = 0.95 - 0.12 * line - shift
            panel.text(0, place, f"{each['row'] if name == 'before' else ''}", fontsize=8)
            panel.text(0.12, place, name, fontsize=8)
            for at, other in enumerate(each[name]):
                both = other in each["before"] and other in each["after"]
                weight = "bold" if both else "normal"
                panel.text(0.3 + 0.14 * at, place, str(other), fontsize=8, weight=weight)
