"""int8 beside fp32 of the same graph: throughput, and how near the answers stay.

In: photos (or none: smooth random pictures), a size. Out: the ratio of images a second at batch 32
with its interval, the lowest cosine that the export measured, and the nodes it left in fp32. Both
bundles come from the project's own exporter; the weights are random, so answers mean nothing.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export import Repository
from export.bundle import Bundle
from export.errors import NotFoundError
from export.revision import folder_revision
from feature_store.progress import bar
from serving.cores import available_cores
from serving.session import Runtime, open_session

from . import report, stats
from .errors import InvalidRunError
from .models import made

BATCH = 32
ROUNDS = 12
BAR, COSINE_BAR = 2.5, 0.999
CONTROL = "fp32 again"


def run(photos: Path | None, size: made.Size, scale: float) -> dict[str, Any]:
    """Measure. Raises InvalidRunError where fp32 beside itself does not come out even."""
    bundles = {precision: _bundle(precision, photos, size) for precision in ("fp32", "int8")}
    runtime = Runtime(device="cpu", threads=available_cores(), rows=BATCH)
    subjects = {name: _timed(bundle, runtime) for name, bundle in bundles.items()}
    subjects[CONTROL] = subjects["fp32"]
    stats.abba(subjects, 1)
    with bar("int8 beside fp32"):
        taken = stats.abba(subjects, max(round(ROUNDS * scale), 2))
    control = stats.ratio(taken[CONTROL], taken["fp32"])
    gain = stats.ratio(taken["fp32"], taken["int8"])
    (figure,) = bundles["int8"].manifest.parity
    how = bundles["int8"].manifest.exporter["model.int8"]
    cosine = figure.cosine if figure.cosine is not None else float("nan")
    times = {name: float(np.median(v)) / BATCH * 1000 for name, v in taken.items()}
    found: dict[str, Any] = {
        "size": size.name,
        "inputs": "smooth random pictures" if photos is None else f"{figure.rows} rows of photos",
        "batch": BATCH,
        "threads": runtime.threads,
        "ms_an_image": times,
        "gain": gain.judged(BAR, least=True),
        "control": control.shown(),
        "cosine": {"lowest": cosine, "bar": COSINE_BAR},
        "nodes": how,
    }
    report.table("one batch of 32, ms an image", [times])
    report.say(f"int8 over fp32: {gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}], bar {BAR}")
    report.say(f"lowest cosine {cosine:.6f}, bar {COSINE_BAR}; {how}")
    if scale >= 1 and not stats.control_holds(control):
        raise InvalidRunError(f"fp32 over itself is {control.value:.2f}: run on a quieter machine")
    return found


def _timed(bundle: Bundle, runtime: Runtime) -> Callable[[int], float]:
    """Seconds of one batch."""
    session = open_session(bundle, "model", runtime)
    (spec,) = bundle.manifest.graphs["model"].inputs
    shape = (BATCH, *(int(side) for side in spec.shape[1:]))
    inputs = {spec.name: np.random.default_rng(0).integers(0, 256, shape, np.uint8)}

    def once(_: int) -> float:
        begun = time.perf_counter()
        session.run(inputs)
        return time.perf_counter() - begun

    return once


def _bundle(precision: str, photos: Path | None, size: made.Size) -> Bundle:
    """The tower in this precision, exported once for these photos and the exporter as it is."""
    inputs = "random" if photos is None else _revision(photos)
    place = made.FOLDER / f"{size.name}-int8-{inputs}"
    name = f"vit_{precision}"
    try:
        return Repository(place).open(name)
    except NotFoundError:
        report.say(f"exporting {name} ({size.name})")
    from export.pipeline import Wanted, publish
    from export.sources.samples import with_samples

    source = made.tower(size, place)
    source = source if photos is None else with_samples(source, photos)
    return publish(source, Repository(place), name, lambda _: None, Wanted(precision))


def _revision(photos: Path) -> str:
    """Twelve hex digits that stand for these pictures."""
    files = [path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file()]
    if not files:
        raise InvalidRunError(f"--photos {photos}: expected a folder of pictures, found none")
    return folder_revision(photos, files).removeprefix("sha256:")[:12]
