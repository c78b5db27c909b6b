"""Ads and labelled ads: lines of a file, and what people have decided before.

In: JSON lines of an ad (`title`, `text`, `image`, or `ad_id`) with `labels` ({category: bool}) or
a `query` and `relevant`; where a router is taught, without either. Out: `Example`s, each as the
service is asked about it; ConfigurationError names the line.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.record import CATEGORIES
from serving.errors import ConfigurationError

LEAST, MOST = 8, 8_192
_Line = TypeVar("_Line", bound="AdLine")


class AdLine(BaseModel):
    """An ad; `image` is a path beside the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ad_id: Annotated[int, Field(ge=1)] | None = None
    title: str | None = None
    text: str | None = None
    image: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "AdLine":
        sent = (self.title, self.text, self.image)
        if (self.ad_id is None) == (sent == (None, None, None)):
            raise ValueError("expected either an ad_id, or a title, a text or an image")
        return self

    def ad(self, where: str, folder: Path) -> Mapping[str, Any]:
        """The ad as `/v1/checks` takes it. Raises ConfigurationError."""
        if self.ad_id is not None:
            return {"ad_id": self.ad_id}
        return {
            "title": self.title,
            "text": self.text,
            "image": _image(self.image, where, folder),
        }


class Line(AdLine):
    """One with its labels."""

    labels: dict[str, bool] = Field(default_factory=dict)
    query: str | None = None
    relevant: bool | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _whole(self) -> "Line":
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
    found = [parse(line, where, file.parent) for where, line in lines(file)]
    check_count(file, len(found), LEAST, MOST)
    return found


def decided(rows: Iterable[Mapping[str, Any]]) -> list[Example]:
    """What the service says that people have decided."""
    said = [line for line in rows if line.get("labels") or "relevant" in line]
    return [parse(orjson.dumps(line), "overrides", Path()) for line in said]


def parse(line: bytes, where: str, folder: Path) -> Example:
    """One line; its image is read from `folder`. Raises ConfigurationError."""
    one = _read(Line, line, where)
    return Example(one.ad(where, folder), one.labels, one.query, bool(one.relevant))


def lines(file: Path) -> list[tuple[str, bytes]]:
    """The lines of a file that are not blank, each with its name. Raises ConfigurationError."""
    try:
        found = file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    return [(f"{file.name}:{n}", line) for n, line in enumerate(found, 1) if line.strip()]


def check_count(file: Path, found: int, least: int, most: int) -> None:
    """Raises ConfigurationError."""
    if not least <= found <= most:
        raise ConfigurationError(f"{file}: expected {least:,}-{most:,} ads, found {found:,}")


def unlabelled(line: bytes, where: str, folder: Path) -> Example:
    """A line of an ad alone. Raises ConfigurationError."""
    return Example(_read(AdLine, line, where).ad(where, folder), {}, None, False)


def _read(kind: type[_Line], line: bytes, where: str) -> _Line:
    try:
        return kind.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{where}: not JSON: {error}") from error
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors()[:5])
        raise ConfigurationError(f"{where}: {said.strip()}") from error


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
