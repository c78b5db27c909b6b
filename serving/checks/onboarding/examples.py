"""Labelled ads: lines of a file, and what people have decided before.

In: JSON lines of an ad (`title`, `text`, `image`, or `ad_id`) with `labels` ({category: bool}) or
a `query` and `relevant`. Out: `Example`s, each as the service is asked about it; ConfigurationError
names the line.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.record import CATEGORIES
from serving.errors import ConfigurationError

LEAST, MOST = 8, 1_024


class Line(BaseModel):
    """One line of the file; `image` is a path beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ad_id: Annotated[int, Field(ge=1)] | None = None
    title: str | None = None
    text: str | None = None
    image: str | None = None
    labels: dict[str, bool] = Field(default_factory=dict)
    query: str | None = None
    relevant: bool | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Line":
        sent = (self.title, self.text, self.image)
        if (self.ad_id is None) == (sent == (None, None, None)):
            raise ValueError("expected either an ad_id, or a title, a text or an image")
        if (self.query is None) != (self.relevant is None):
            raise ValueError("query and relevant go together")
        if not self.labels and self.relevant is None:
            raise ValueError("expected labels, or a query with relevant")
        if unknown := sorted(set(self.labels) - set(CATEGORIES)):
            raise ValueError(f"no categories {unknown}; expected some of {sorted(CATEGORIES)}")
        return self


@dataclass(frozen=True, slots=True)
class Example:
    """One ad with its labels. ad: `{"ad_id"}`, or an ad as `/v1/checks` takes it."""

    ad: Mapping[str, Any]
    labels: Mapping[str, bool]
    query: str | None
    relevant: bool


def read(file: Path) -> list[Example]:
    """The examples of a file, LEAST to MOST. Raises ConfigurationError."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"--examples {file}: {error.strerror}") from error
    found = [
        parse(line, f"{file.name}:{number}", file.parent)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not LEAST <= len(found) <= MOST:
        raise ConfigurationError(
            f"--examples {file}: expected {LEAST}-{MOST:,} labelled ads, found {len(found)}"
        )
    return found


def decided(lines: Iterable[Mapping[str, Any]]) -> list[Example]:
    """What the service says that people have decided."""
    said = [line for line in lines if line.get("labels") or "relevant" in line]
    return [parse(orjson.dumps(line), "overrides", Path()) for line in said]


def parse(line: bytes, where: str, folder: Path) -> Example:
    """One line; its image is read from `folder`. Raises ConfigurationError."""
    try:
        one = Line.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{where}: not JSON: {error}") from error
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors()[:5])
        raise ConfigurationError(f"{where}: {said.strip()}") from error
    if one.ad_id is not None:
        ad: dict[str, Any] = {"ad_id": one.ad_id}
    else:
        ad = {"title": one.title, "text": one.text, "image": _image(one.image, where, folder)}
    return Example(ad, one.labels, one.query, bool(one.relevant))


def questions(examples: Sequence[Example]) -> list[str]:
    """The categories that are labelled, in the records' order."""
    named = {name for example in examples for name in example.labels}
    return [name for name in CATEGORIES if name in named]


def _image(name: str | None, where: str, folder: Path) -> str | None:
    if name is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigurationError(f"{where}: image {name!r} is outside of the file's folder")
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise ConfigurationError(f"{where}: image {name!r}: {error.strerror}") from error
