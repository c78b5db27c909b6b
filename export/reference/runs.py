"""What the training commands do, from arguments to a published bundle."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export import shipped
from export.bundle import Bundle
from export.hashing import HashCache
from export.reference import image_training, vectors
from export.reference.accuracy import interval
from export.reference.errors import ReferenceModelError
from export.reference.image_encoder import ImageEncoder
from export.reference.photos import RESIZE_RULE, cut, open_folder, read_rgb
from export.reference.progress import progress
from export.reference.publishing import publish_weights, training_folder
from export.reference.text_tower import class_rows
from export.repository import Repository
from export.revision import folder_revision
from export.semantic_id.learning import Plan, learn
from export.semantic_id.model import SemanticId
from export.semantic_id.plots import draw
from export.sources.own import read_image_encoder
from export.sources.semantic_id import WEIGHTS, read_semantic_id

PHOTO_LICENCE = "real product photos in ten clothing classes, CC0"


def train_image(
    photos: Path, judged: Path | None, plan: image_training.Plan, out: Path
) -> tuple[Bundle, dict[str, object]]:
    """Trains the image tower and publishes it; `judged` photos are only scored, at the end."""
    folder = open_folder(photos)
    if len(folder.files) < plan.batch or len(folder.classes) < 2:
        raise ReferenceModelError(
            f"expected {plan.batch} photos or more in at least 2 classes, found "
            f"{len(folder.files)} in {len(folder.classes)}"
        )
    judges = open_folder(judged) if judged else None
    if judges and judges.classes != folder.classes:
        raise ReferenceModelError(
            f"expected the classes {list(folder.classes)} in {judged}, found {list(judges.classes)}"
        )
    checkpoint = training_folder(out, "image_encoder") / "checkpoint.pt"
    model = image_training.train(folder, plan, checkpoint, lambda _: None)
    card: dict[str, object] = {
        "command": f"python -m export.reference image --photos PHOTOS --epochs {plan.epochs} "
        f"--seed {plan.seed} --out REPO",
        "plan": asdict(plan),
        "data": f"{len(folder.files)} photos ({PHOTO_LICENCE}) and {plan.drawn} creatives of the "
        "generated catalogue",
        "classes": list(folder.classes),
        "text_encoder": folder_revision(shipped.text_folder()),
        "resize": RESIZE_RULE,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if judges:
        right, total = score(model, judges.files, judges.labels, judges.classes)
        low, high = interval(right, total)
        card["score"] = {
            "what": "top-1 by the nearest class text on held-out photos, never trained on",
            "photos": total,
            "accuracy": round(right / total, 4),
            "interval_95": [round(low, 4), round(high, 4)],
        }
    bundle = publish_weights(model, card, "image_encoder", out, read_image_encoder)
    return bundle, card


def score(
    model: ImageEncoder, files: tuple[Path, ...], labels: NDArray[np.int64], classes: Sequence[str]
) -> tuple[int, int]:
    """How many photos the nearest class text names rightly, of how many."""
    rows = vectors.image_rows(model, (cut(read_rgb(file)) for file in files), len(files))
    named = (rows @ class_rows(classes)[-1].T).argmax(1)
    return int((named == labels).sum()), len(files)


@dataclass(frozen=True, slots=True)
class Learning:
    """What a tokenizer is learned from.

    Attributes:
        embeddings: .npy, rows (n, D).
        pairs: .npy, labelled pairs of rows, or None.
        encoders: NAME@VERSION of the bundles that made the embeddings.
        previous: a tokenizer bundle to start from, or None.
        seed: of everything drawn.
    """

    embeddings: Path
    pairs: Path | None = None
    encoders: tuple[str, ...] = ()
    previous: Path | None = None
    seed: int = 7


def train_semantic_id(what: Learning, out: Path) -> tuple[Bundle, dict[str, object]]:
    """Learns the tokenizer and publishes it; the report lies beside the weights in `.training`."""
    rows = vectors.load_rows(what.embeddings)
    labelled = load_pairs(what.pairs, len(rows)) if what.pairs else None
    learned_on = encoder_revisions(what.encoders, out)
    before = read_previous(what.previous) if what.previous else None
    plan = Plan(seed=what.seed)
    if before is not None:
        plan = replace(plan, sizes=before.sizes, latent=before.basis.shape[1])
    with progress("learn semantic IDs", plan.steps) as advance:
        model, figures = learn(rows, labelled, before, plan, advance)
    card: dict[str, object] = {
        "command": f"python -m export.reference semantic_id --embeddings FILE.npy"
        f"{' --pairs FILE.npy' if what.pairs else ''}"
        f"{''.join(f' --encoder {name}' for name in what.encoders)}"
        f"{' --previous BUNDLE' if what.previous else ''} --seed {plan.seed} --out REPO",
        "plan": asdict(plan),
        "data": f"{len(rows)} unit rows",
        "encoders": learned_on or None,
        "report": figures,
    }
    folder = training_folder(out, "semantic_id")
    folder.mkdir(parents=True, exist_ok=True)
    draw(model, rows, figures, folder / "report.png")
    return publish_weights(model, card, "semantic_id", out, read_semantic_id), card


def encoder_revisions(encoders: Sequence[str], out: Path) -> dict[str, str]:
    """NAME@VERSION of bundles in `out` -> name and the revision of what they were made from.

    Raises: `ExportError` when one is malformed or not there.
    """
    revisions = {}
    for encoder in encoders:
        name, at, version = encoder.partition("@")
        if not (name and at and version):
            raise ReferenceModelError(
                f"--encoder: expected NAME@VERSION such as image_encoder@1, found {encoder!r}"
            )
        revisions[name] = Repository(out).open(name, version).manifest.source.revision
    return revisions


def read_previous(folder: Path) -> SemanticId:
    """The codebooks of a published tokenizer.

    Raises: `ExportError` when `folder` is no tokenizer bundle that carries them.
    """
    if not folder.is_dir():
        raise ReferenceModelError(f"--previous: expected a bundle folder, found none at {folder}")
    return SemanticId.from_weights(Bundle.read(folder, HashCache()).file(WEIGHTS))


def load_pairs(file: Path, count: int) -> NDArray[np.int64]:
    """Labelled pairs: int64 (m, 3) row, row, 1 if the same product else 0.

    Raises: `ReferenceModelError` when the file is not that, or names rows beyond `count`.
    """
    try:
        pairs = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ReferenceModelError(f"expected an .npy array at {file}: {error}") from error
    if not isinstance(pairs, np.ndarray) or pairs.ndim != 2 or pairs.shape[1] != 3:
        shape = getattr(pairs, "shape", "an archive")
        raise ReferenceModelError(f"{file}: expected (m, 3) row, row, label; found {shape}")
    if pairs.dtype.kind not in "iu":
        raise ReferenceModelError(f"{file}: expected integers, found {pairs.dtype}")
    wide: NDArray[np.int64] = pairs.astype(np.int64)
    if len(wide) and not (wide[:, :2].min() >= 0 and wide[:, :2].max() < count):
        raise ReferenceModelError(
            f"{file}: expected rows 0..{count - 1} of the embeddings, found "
            f"{wide[:, :2].min()}..{wide[:, :2].max()}"
        )
    if not np.isin(wide[:, 2], (0, 1)).all():
        raise ReferenceModelError(
            f"{file}: expected labels 0 and 1, found {np.unique(wide[:, 2])[:5].tolist()}"
        )
    return wide


def make_vectors(
    photos: Path | None, titles: Path | None, count: int, seed: int
) -> NDArray[np.float32]:
    """The shipped image tower's and the text tower's rows: unit float32 (n, 384)."""
    torch.manual_seed(seed)
    encoder = ImageEncoder.from_weights()
    parts = [vectors.catalogue_rows(encoder, count, seed)]
    if photos:
        parts.append(vectors.photo_rows(encoder, photos))
    if titles:
        parts.append(vectors.title_rows(titles))
    return np.concatenate(parts)
