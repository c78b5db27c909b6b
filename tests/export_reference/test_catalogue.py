import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.reference.catalogue import Creative, caption, generate, write
from export.reference.drawing import Scene, draw, prop_label
from export.reference.errors import ReferenceModelError
from export.reference.labels import COLOURS, EXPERIENCE, LABELS, PROPS, RISKS
from export.reference.phrases import RISKS as PHRASES
from export.reference.shapes import SHAPES
from export.reference.wording import TEXT_LABELS, risky_phrase, text


def same(left: Creative, right: Creative) -> bool:
    return left.row("x") == right.row("x") and left.image.tobytes() == right.image.tobytes()


def test_a_creative_depends_on_its_seed_and_number_alone() -> None:
    few, many = list(generate(3, seed=5)), list(islice(generate(100, seed=5), 3))
    assert all(same(left, right) for left, right in zip(few, many, strict=True))
    assert not same(few[0], next(generate(1, seed=6)))


def test_every_label_is_known_and_says_where_it_is_evident() -> None:
    creatives = list(generate(600, seed=3))
    seen = {(label, where) for c in creatives for label, where in c.evident_in.items()}
    assert {where for _, where in seen} == {"text", "image", "both"}
    # What only the picture shows must be there for every label that a picture can show.
    assert {label for label, where in seen if where == "image"} == set(LABELS)
    assert {label for label, where in seen if where == "text"} == set(LABELS)
    assert 0.3 < np.mean([bool(c.evident_in) for c in creatives]) < 0.7


def test_evidence_agrees_with_scene_and_words() -> None:
    for creative in generate(400, seed=4):
        shown = {prop_label(prop) for prop in creative.scene.props} | set(creative.scene.flaws)
        in_image = {k for k, where in creative.evident_in.items() if where != "text"}
        assert shown == in_image
        for label in RISKS:
            words = any(_matches(label, creative.text))
            assert words == (creative.evident_in.get(label) in ("text", "both")), creative.text


def _matches(label: str, words: str) -> list[bool]:
    """Whether a phrase's first option and its second one both occur, for every grammar."""
    found = []
    for template, slots in PHRASES[label]:
        del template
        found.append(all(any(option in words for option in options) for options in slots))
    return found


def test_written_folder_is_what_was_drawn(tmp_path: Path) -> None:
    out = tmp_path / "ads"
    drawn = list(write(generate(12, seed=8), out))
    rows = [json.loads(line) for line in (out / "ads.jsonl").read_text("utf-8").splitlines()]
    assert [row["ad_id"] for row in rows] == list(range(1, 13))
    for row, creative in zip(rows, drawn, strict=True):
        assert set(row["labels"]) == set(LABELS)
        assert {k for k, held in row["labels"].items() if held} == set(row["evident_in"])
        with Image.open(out / row["image"]) as image:
            assert image.size == (160, 160)
            difference = np.asarray(image, dtype=int) - np.asarray(creative.image, dtype=int)
        assert np.abs(difference).mean() < 12
    with pytest.raises(ReferenceModelError, match="is there already"):
        list(write(generate(1, seed=8), out))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_object_is_visible(name: str) -> None:
    product = name if name not in {p for props in PROPS.values() for p in props} else "mug"
    bare = draw(Scene("mug", "blue", (), ()), np.random.default_rng(1))
    scene = Scene(product, "blue", () if product == name else (name,), ())
    picture = draw(scene, np.random.default_rng(1))
    changed = (np.asarray(picture, dtype=int) - np.asarray(bare, dtype=int)).any(axis=2).mean()
    assert name == "mug" or changed > 0.03


@pytest.mark.parametrize("flaw", EXPERIENCE)
def test_every_flaw_changes_the_picture(flaw: str) -> None:
    plain = draw(Scene("dress", "red", (), ()), np.random.default_rng(2))
    spoilt = draw(Scene("dress", "red", (), (flaw,)), np.random.default_rng(2))
    assert plain.tobytes() != spoilt.tobytes()


def test_captions_name_what_is_seen() -> None:
    words = caption(Scene("outwear", "orange", ("bottle",), ("clutter",)))
    assert words == (
        "an orange outerwear jacket with a bottle of beer, a cluttered mess of stickers"
    )


@pytest.mark.parametrize("label", TEXT_LABELS)
def test_a_text_breaks_what_it_is_told_to(label: str) -> None:
    rng = np.random.default_rng(3)
    if label in PHRASES:
        assert any(_matches(label, risky_phrase(label, rng)))
    assert len(text("dress", "red", (label,), rng)) > len("A dress.")


def test_all_colours_are_told_apart_by_name() -> None:
    assert len({tuple(c) for c in COLOURS.values()}) == len(COLOURS)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ReferenceModelError, match="count and a seed of 0 or more"):
        list(generate(-1, seed=0))
