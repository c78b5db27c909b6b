"""What a tokenizer's codes mean, as a picture: rows of images that share a code.

In: a tokenizer's bundle, the image encoder it was learned on, and a folder of pictures. Out: a PNG.
A row is one entry of the coarsest codebook; its pictures are the clearest cases first.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.bundle import Bundle
from export.errors import MissingExtraError, SourceError
from export.progress import counted

Array = npt.NDArray[Any]
MOST_PICTURES = 2_000
ROWS, COLUMNS = 16, 10
TILE, LABEL = 96, 150  # pixels
_BATCH = 32
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def draw(tokenizer: Bundle, encoder: Bundle, samples: Path, sheet: Path) -> str:
    """Draw the sheet. Returns what is on it, in words.

    Raises:
        SourceError: no tokenizer, another encoder than it was learned on, or no pictures.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingExtraError("pillow") from error
    _check(tokenizer, encoder)
    pictures = _pictures(samples, encoder)
    codes, margin = _codes(tokenizer, encoder, pictures)
    level = str(_list(tokenizer, "levels")[0])
    entries, counts = np.unique(codes[:, 0], return_counts=True)
    order = np.lexsort((entries, -counts))[:ROWS]
    image = Image.new("RGB", (LABEL + COLUMNS * TILE, len(order) * TILE), "white")
    pen = ImageDraw.Draw(image)
    for row, entry in enumerate(entries[order]):
        members = np.flatnonzero(codes[:, 0] == entry)
        members = members[np.argsort(-margin[members, 0], kind="stable")]
        rest = len(np.unique(codes[members], axis=0))
        text = f"{level} {entry}\n{len(members)} pictures\n{rest} distinct IDs"
        pen.multiline_text((8, row * TILE + 24), text, fill="black")
        for column, member in enumerate(members[:COLUMNS]):
            tile = Image.fromarray(pictures[member]).resize((TILE - 4, TILE - 4))
            image.paste(tile, (LABEL + column * TILE + 2, row * TILE + 2))
    sheet.parent.mkdir(parents=True, exist_ok=True)
    image.save(sheet, "PNG")
    size = int(str(_list(tokenizer, "sizes")[0]))
    return f"{len(pictures)} pictures in {len(entries)} of {size} entries of {level}"


def _check(tokenizer: Bundle, encoder: Bundle) -> None:
    if "encode" not in tokenizer.manifest.graphs:
        kind = tokenizer.manifest.kind
        raise SourceError(f"a contact sheet is drawn of a semantic_id bundle, this is a {kind}")
    learned_on = tokenizer.manifest.metadata.get("encoders")
    wanted = learned_on.get("image_encoder") if isinstance(learned_on, dict) else None
    found = encoder.manifest.source.revision
    if wanted is not None and wanted != found:
        raise SourceError(
            f"the tokenizer was learned on image encoder {wanted}, this one is {found}: name that "
            "one's bundle with --encoder"
        )


def _list(bundle: Bundle, key: str) -> list[object]:
    value = bundle.manifest.metadata.get(key)
    if not isinstance(value, list) or not value:
        raise SourceError(f"{bundle.manifest.name}: its manifest has no {key}")
    return value


def _pictures(folder: Path, encoder: Bundle) -> list[Array]:
    """uint8 (H, W, 3) each, as the encoder takes them, evenly from all there are."""
    from PIL import Image, ImageOps

    _, height, width, _ = encoder.manifest.graphs["model"].inputs[0].shape
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise SourceError(f"{folder}: there is no picture ({', '.join(_SUFFIXES)}) below it")
    count = min(len(files), MOST_PICTURES)
    found, size = [], (int(width), int(height))
    with counted("reading pictures", count) as advance:
        for path in (files[index * len(files) // count] for index in range(count)):
            try:
                with Image.open(path) as image:
                    rgb: Image.Image = ImageOps.exif_transpose(image).convert("RGB")
            except OSError as error:
                raise SourceError(f"{path} cannot be read: {error}") from error
            found.append(np.asarray(ImageOps.fit(rgb, size, Image.Resampling.BICUBIC)))
            advance(1)
    return found


def _codes(tokenizer: Bundle, encoder: Bundle, pictures: list[Array]) -> tuple[Array, Array]:
    """`codes` int32 (n, 6) and `margin` float32 (n, 6)."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime") from error

    provider = ["CPUExecutionProvider"]
    tower = onnxruntime.InferenceSession(str(encoder.path()), providers=provider)
    encode = onnxruntime.InferenceSession(str(tokenizer.path("encode")), providers=provider)
    codes, margins = [], []
    with counted("encoding pictures", len(pictures)) as advance:
        for at in range(0, len(pictures), _BATCH):
            batch = np.stack(pictures[at : at + _BATCH])
            (features,) = tower.run(["image_features"], {"pixels": batch})
            found, margin = encode.run(["codes", "margin"], {"features": features})
            codes.append(found)
            margins.append(margin)
            advance(len(batch))
    return np.concatenate(codes), np.concatenate(margins)
