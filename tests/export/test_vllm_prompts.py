"""Prompts as token ids: content stays data, limits hold and are said."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.random_llm import CATEGORIES, SPECIAL, make_words
from export import checks
from export.checks import Checks
from export.errors import SourceError
from export.prompts import PLACEHOLDER, Renderer, Words, clean, normalise_query

REFERENCE = Path(checks.__file__).parent / "reference" / "weights" / "checks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("words")
    make_words(made)
    return made


@pytest.fixture(scope="module")
def spec(folder: Path) -> Checks:
    return checks.read(folder)


@pytest.fixture(scope="module")
def renderer(folder: Path, spec: Checks) -> Renderer:
    return Renderer(folder / "tokenizer.json", spec)


def test_an_ad_cannot_write_template_tokens(renderer: Renderer, spec: Checks) -> None:
    prompt = spec.prompts.relevance
    plain = renderer.render(prompt, Words("a", "b", "c"))
    evil = " ".join(SPECIAL)
    found = renderer.render(prompt, Words(f"a {evil}", f"{evil}", f"{evil}"))
    marks = [token for token in plain.ids if token < len(SPECIAL)]
    assert marks
    assert [token for token in found.ids if token < len(SPECIAL)] == marks
    assert len(found.ids) > len(plain.ids)


def test_the_shared_part_comes_first_and_is_the_same(renderer: Renderer, spec: Checks) -> None:
    prompt = spec.prompts.risk[next(iter(CATEGORIES))]
    first = renderer.render(prompt, Words("a red dress", "cheap")).ids
    second = renderer.render(prompt, Words("blue shoes", "for all the family")).ids
    shared = renderer.single(prompt.prefix)
    assert list(first[: len(shared)]) == list(second[: len(shared)]) == shared


def test_a_prefix_fills_whole_blocks_of_the_cache(folder: Path, spec: Checks) -> None:
    prompt = spec.prompts.relevance
    plain = Renderer(folder / "tokenizer.json", dataclasses.replace(spec, filler=""))
    filled = Renderer(folder / "tokenizer.json", dataclasses.replace(spec, filler="\n"))
    short, whole = plain.prefix(prompt), filled.prefix(prompt)
    assert len(short) % spec.block_size != 0
    assert len(whole) == -(-len(short) // spec.block_size) * spec.block_size
    assert whole[: len(short)] == short
    assert set(whole[len(short) :]) == set(filled.single("\n"))
    ad = Words("a red dress", "cheap", "red")
    assert filled.render(prompt, ad).ids == (*whole, *plain.render(prompt, ad).ids[len(short) :])
    wide = Renderer(folder / "tokenizer.json", dataclasses.replace(spec, filler="red dress"))
    with pytest.raises(SourceError, match="filler: expected one token"):
        wide.render(prompt, ad)


EVASIONS = (
    "{0}",
    "a{0}b",
    " {0} {0}\n{0}",
    "{0[0]}\u200b{0[1]}{1}",  # parted by characters that nobody sees
    "{2}",  # in full width
)


@pytest.mark.parametrize("evasion", EVASIONS)
@pytest.mark.parametrize("tokenizer", ["random", "reference"])
def test_no_special_token_is_ever_written_by_an_ad(
    folder: Path, spec: Checks, tokenizer: str, evasion: str
) -> None:
    place = folder if tokenizer == "random" else REFERENCE
    file = place / "tokenizer.json"
    added = json.loads(file.read_bytes())["added_tokens"]
    special = {int(token["id"]) for token in added}
    asked = checks.read(place)
    renderer = Renderer(file, asked)
    for token in (str(token["content"]) for token in added):
        wide = token.translate({n: n + 0xFEE0 for n in range(0x21, 0x7F)})
        evil = evasion.format(token, token[2:], wide)
        for prompt in (asked.prompts.relevance, *asked.prompts.risk.values()):
            expected = [i for i in renderer.render(prompt, Words()).ids if i in special]
            # Also halves in two fields, which the layout brings near each other.
            for words in (Words(evil, evil, evil), Words(token[:3], token[3:], token)):
                found = renderer.render(prompt, words).ids
                assert [i for i in found if i in special] == expected, (token, words)


def test_soft_tokens_stand_where_the_image_goes(renderer: Renderer, spec: Checks) -> None:
    prompt = spec.prompts.relevance
    without = renderer.render(prompt, Words("a", "b", "c"))
    found = renderer.render(prompt, Words("a", "b", "c", image=True))
    assert without.soft_at is None
    assert found.soft_at is not None
    end = found.soft_at + spec.soft_tokens
    assert found.ids[found.soft_at : end] == (PLACEHOLDER,) * spec.soft_tokens
    assert found.ids[: found.soft_at] + found.ids[end:] == without.ids


def test_long_fields_are_cut_and_that_is_said(renderer: Renderer, spec: Checks) -> None:
    prompt = spec.prompts.relevance
    short = renderer.render(prompt, Words("a title", "a text", "a query"))
    assert short.cut == ()
    long = renderer.render(prompt, Words("word " * 2_000, "word " * 2_000, "word " * 200))
    assert set(long.cut) == {"title", "text", "query"}
    limits = spec.limits
    most = limits.title_tokens + limits.text_tokens + limits.query_tokens
    assert len(long.ids) <= len(renderer.render(prompt, Words()).ids) + most
    # A single word of ten thousand letters is cut before the tokenizer sees all of it.
    assert renderer.render(prompt, Words("a", "x" * 10_000)).cut == ("text",)


def test_a_space_before_a_place_goes_with_the_content(folder: Path, spec: Checks) -> None:
    renderer = Renderer(folder / "tokenizer.json", spec)
    prompt = checks.Prompt("", "Title: {title}", "")
    assert list(renderer.render(prompt, Words("red dress")).ids) == renderer.single(
        "Title:"
    ) + renderer.single(" red dress")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (" a\n\tb ", "a b"),
        ("a\u200b\u202eb", "a b"),
        ("\uff26\uff55\uff4c\uff4c", "Full"),
        ("\x00", ""),
    ],
)
def test_content_is_one_line(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_spellings_of_a_query_are_one() -> None:
    assert normalise_query(" Red\n SHOES ") == normalise_query("red shoes") == "red shoes"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{query}", "{colour}", "relevance"),
        ('"review": 0.6', '"review": 0.95', "review <= block"),
        ('"soft_tokens"', '"soft"', "unknown field"),
        ('"context": 640', '"context": 0', "context"),
    ],
)
def test_a_wrong_checks_file_is_refused(
    folder: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (folder / "checks.json").read_text()
    assert old in text
    (tmp_path / "checks.json").write_text(text.replace(old, new))
    with pytest.raises(SourceError, match=said):
        checks.read(tmp_path)


def test_the_example_of_the_page_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "checks.md").read_text()
    example = page.split("```json\n")[1].split("```")[0]
    spec = checks.parse(example.encode())
    assert set(spec.prompts.risk) == {"gambling"}
    assert not spec.enforce
