"""Creatives on disk: ids by sorted path, lines of ads.jsonl, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from serving.errors import ConfigurationError
from serving.up.creatives import read


def test_class_folders_give_ids_by_bytewise_path_and_the_class_as_title(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.jpg", "a/x.PNG", "Z/y.webp", "a/notes.txt", "top.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = read(tmp_path).creatives
    assert [c.source for c in found] == ["Z/y.webp", "a/x.PNG", "b/10.jpg", "b/2.jpg", "top.jpg"]
    assert [c.ad_id for c in found] == [1, 2, 3, 4, 5]
    assert [c.title for c in found] == ["Z", "a", "b", "b", ""]


def test_lines_name_their_own_ids(tmp_path: Path) -> None:
    lines = [
        {"ad_id": 7, "image": "images/7.jpg", "title": "shoes", "text": "red", "class": "shoe"},
        {"ad_id": "9223372036854775807", "title": "text alone"},
    ]
    (tmp_path / "ads.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    seven, last = read(tmp_path).creatives
    assert (seven.ad_id, seven.image, seven.title) == (7, tmp_path / "images/7.jpg", "shoes")
    assert (last.ad_id, last.image, last.text) == (2**63 - 1, None, "")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"title": "no id"}',
        '{"ad_id": 0, "title": "x"}',
        '{"ad_id": 1, "title": 5}',
        '{"ad_id": 1, "image": "../../etc/passwd"}',
        '{"ad_id": 2}\n{"ad_id": 2}',
        '{"ad_id": 1, "title": "\\ud800"}',
        '{"ad_id": 1, "title": "x", "class": "\\udc80"}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_creative_is_reported(tmp_path: Path, line: str) -> None:
    (tmp_path / "ads.jsonl").write_text(line + '\n{"ad_id": 5, "title": "good"}\n')
    found = read(tmp_path)
    assert found.creatives[-1].ad_id == 5
    (source, reason) = found.refused[0]
    assert source.startswith("ads.jsonl:")
    assert reason


def test_names_that_are_no_utf8_can_be_sent_and_reported(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"x")
    (found,) = read(tmp_path).creatives
    assert (found.title, found.query, found.source) == ("caf�", "caf�", "caf�/1.jpg")
    assert found.image is not None
    assert found.image.read_bytes() == b"x"


def test_a_folder_without_creatives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="found neither"):
        read(tmp_path)
