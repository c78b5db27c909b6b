"""How well the exported encoders name what photos show: the bundles themselves, in ONNX Runtime.

In: class folders of photos and a repository with `image_encoder` and `text_encoder`. Out: top-1
accuracy by the nearest class text with a 95% interval, a table by class, and the confusions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import parity, shipped
from export.bundle import Bundle
from export.reference.errors import ReferenceModelError
from export.reference.photos import RESIZE_RULE, cut, open_folder, read_rgb
from export.reference.progress import progress
from export.reference.templates import TEMPLATES, class_texts
from export.repository import Repository

DEFAULT_MODELS = Path("var/models")
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What was found.

    Attributes:
        classes: names, in the order of `confusion`.
        confusion: int64 (K, K), rows are true classes, columns the named ones.
    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]

    @property
    def correct(self) -> int:
        """Photos named rightly."""
        return int(self.confusion.trace())

    @property
    def total(self) -> int:
        """Photos looked at."""
        return int(self.confusion.sum())


def measure(photos: Path, repository: Repository) -> Accuracy:
    """Classifies every photo by the nearest class text.

    Raises: `ExportError` when photos or bundles cannot be read, or the bundles do not go together.
    """
    folder = open_folder(photos)
    image, text = repository.open("image_encoder"), repository.open("text_encoder")
    _, height, width, _ = image.manifest.graphs["model"].inputs[0].shape
    if (height, width) != (96, 96):
        raise ReferenceModelError(
            f"expected an image_encoder of 96 x 96 pixels, found {height} x {width}: the cutting "
            "rule of other encoders is not known here"
        )
    classes = _class_rows(folder.classes, text)
    session = parity.open_session(image.path("model"))
    confusion = np.zeros((len(folder.classes), len(folder.classes)), dtype=np.int64)
    with progress("classify photos", len(folder.files)) as advance:
        for start in range(0, len(folder.files), _BATCH):
            files = folder.files[start : start + _BATCH]
            pixels = np.stack([cut(read_rgb(file)) for file in files])
            (features,) = session.run(["image_features"], {"pixels": pixels})
            if features.shape[1] != classes.shape[1]:
                raise ReferenceModelError(
                    f"image_encoder gives {features.shape[1]} dimensions, text_encoder "
                    f"{classes.shape[1]}: export two towers of one model"
                )
            named = (features @ classes.T).argmax(1)
            np.add.at(confusion, (folder.labels[start : start + len(files)], named), 1)
            advance(steps=len(files))
    return Accuracy(folder.classes, confusion)


def open_models(models: Path | None) -> Repository:
    """The named repository, or the default one with the shipped encoders made if missing."""
    repository = Repository(models or DEFAULT_MODELS)
    if models is None:
        with progress("make encoders", 1) as advance:
            shipped.make(
                repository,
                ("image_encoder", "text_encoder"),
                lambda name, doing: advance(f"{name}: {doing}", steps=0),
            )
            advance()
    return repository


def interval(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927)."""
    z = 1.959964
    share = correct / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = share * (1 - share) / total + z * z / (4 * total * total)
    half = z / (1 + z * z / total) * float(np.sqrt(spread))
    return middle - half, middle + half


def lines(found: Accuracy) -> list[str]:
    """The report, as text."""
    low, high = interval(found.correct, found.total)
    share = found.correct / found.total
    width = max(len(name) for name in found.classes)
    report = [
        f"top-1 {share:.1%} ({found.correct} of {found.total} photos), "
        f"95% interval {low:.1%} to {high:.1%}",
        f"nearest of {len(found.classes)} class texts, each the mean of {len(TEMPLATES)} templates",
        f"pixels: {RESIZE_RULE}",
        "",
        f"{'class':<{width}}  photos  right  recall  precision  taken for",
    ]
    for row, name in enumerate(found.classes):
        counts = found.confusion[row]
        right, photos, named = counts[row], counts.sum(), found.confusion[:, row].sum()
        others = [i for i in np.argsort(-counts, kind="stable") if i != row and counts[i]]
        wrong = ", ".join(f"{found.classes[i]} {counts[i]}" for i in others)
        precision = f"{right / named:.1%}" if named else "-"
        recall = f"{right / photos:.1%}"
        report.append(
            f"{name:<{width}}  {photos:>6}  {right:>5}  {recall:>6}  {precision:>9}  {wrong}"
        )
    return report


def _class_rows(classes: tuple[str, ...], text: Bundle) -> NDArray[np.float32]:
    """Mean unit rows of the classes' texts: float32 (K, D)."""
    from tokenizers import Tokenizer

    settings = text.manifest.metadata.get("tokenizer")
    name = (
        settings.get("file", "tokenizer.json") if isinstance(settings, dict) else "tokenizer.json"
    )
    tokenizer = Tokenizer.from_file(str(text.file(str(name))))
    session: Any = parity.open_session(text.path("model"))
    tokens = tokenizer.encode_batch(class_texts(classes))
    (rows,) = session.run(
        ["text_features"],
        {
            "input_ids": np.array([t.ids for t in tokens], dtype=np.int64),
            "attention_mask": np.array([t.attention_mask for t in tokens], dtype=np.int64),
        },
    )
    mean = rows.reshape(len(TEMPLATES), len(classes), -1).mean(axis=0)
    unit: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit
