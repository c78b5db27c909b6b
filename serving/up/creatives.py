"""Creatives on disk: a folder of class folders, or one with an `ads.jsonl`.

In: a folder. Out: `Creative`s in order of their ids, and the lines that are none. Files are read
later, one at a time; a file that is no image keeps its id and is refused by ingest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ConfigurationError, ServingError
from serving.lookup.rows import parse_id

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}


@dataclass(frozen=True, slots=True)
class Creative:
    """One ad to ingest; `source` is what a report calls it."""

    ad_id: int
    image: Path | None
    title: str
    text: str
    source: str
    labels: Mapping[str, bool] | None = None  # known risks, by category
    query: str | None = None  # one that the ad answers


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Creatives, and (source, reason) of every line that is none."""

    creatives: tuple[Creative, ...]
    refused: tuple[tuple[str, str], ...] = ()


def read(folder: Path) -> Catalogue:
    """The creatives of a folder; ConfigurationError when there are none."""
    listing = folder / "ads.jsonl"
    found = _from_lines(folder, listing) if listing.is_file() else _from_classes(folder)
    if not found.creatives and not found.refused:
        raise ConfigurationError(
            f"--creatives {folder}: expected ads.jsonl or <class>/<name>.jpg, found neither"
        )
    return found


def _from_classes(folder: Path) -> Catalogue:
    """Ad ids 1..n by relative POSIX path, bytewise; the class is the title."""
    files = [
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    files.sort(key=lambda path: path.as_posix().encode(errors="surrogateescape"))
    return Catalogue(
        tuple(
            Creative(
                ad_id=number,
                image=folder / path,
                title=_shown(path.parts[0]) if len(path.parts) > 1 else "",
                text="",
                source=_shown(path.as_posix()),
                query=_shown(path.parts[0]) if len(path.parts) > 1 else None,
            )
            for number, path in enumerate(files, 1)
        )
    )


def _from_lines(folder: Path, listing: Path) -> Catalogue:
    creatives: dict[int, Creative] = {}
    refused: list[tuple[str, str]] = []
    try:
        lines = listing.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"--creatives: {listing} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        source = f"{listing.name}:{number}"
        try:
            creative = _creative(folder, line, source)
        except (ServingError, ValueError) as error:
            refused.append((source, str(error)))
            continue
        if creative.ad_id in creatives:
            refused.append((source, f"ad {creative.ad_id} is listed above already"))
        else:
            creatives[creative.ad_id] = creative
    return Catalogue(tuple(creatives.values()), tuple(refused))


def _creative(folder: Path, line: bytes, source: str) -> Creative:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if not isinstance(entry, dict) or "ad_id" not in entry:
        raise ValueError("expected an object with ad_id, image, title, text")
    texts = {name: entry.get(name) or "" for name in ("image", "title", "text")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"{name}: expected a string")
        _unicode(name, value)
    image = folder / texts["image"] if texts["image"] else None
    if image is not None and not image.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"image: {texts['image']!r} is outside of the folder")
    labels, query = entry.get("labels"), entry.get("class")
    return Creative(
        parse_id(entry["ad_id"]),
        image,
        texts["title"],
        texts["text"],
        source,
        labels if isinstance(labels, dict) else None,
        _unicode("class", query) if isinstance(query, str) else None,
    )


def _unicode(name: str, value: str) -> str:
    """A text of a line; ValueError for JSON's escape of half a character, which nobody can send."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: expected Unicode text, found a lone surrogate") from error
    return value


def _shown(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8 become U+FFFD."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
