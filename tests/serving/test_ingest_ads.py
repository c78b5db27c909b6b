"""What an advertiser sends: manifest lines, limits, and the content hash."""

import hashlib
import json

import pytest

from serving.errors import InvalidContentError, InvalidRequestError, ServingError
from serving.ingest.ads import Ad, make_ad, parse_manifest


def manifest(*lines: object) -> bytes:
    return "\n".join(json.dumps(line) for line in lines).encode()


def test_lines_become_ads_with_their_images() -> None:
    lines = parse_manifest(
        manifest({"ad_id": 1, "image": "a", "title": "t"}, {"ad_id": "2", "text": "x"}),
        {"a": b"bytes"},
    )
    assert [line.ad for line in lines] == [Ad(1, "t", "", b"bytes"), Ad(2, "", "x", None)]
    assert [line.number for line in lines] == [1, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"title": "x"}, "ad_id"),
        ({"ad_id": 1, "colour": "red"}, "colour"),
        ({"ad_id": 0, "title": "x"}, "1..2"),
        ({"ad_id": 1, "image": "b"}, "named 'b'"),
        ({"ad_id": 1}, "found none"),
        ({"ad_id": 1, "title": "x" * 1001}, "1,000 characters"),
        ({"ad_id": 1, "text": "x" * 20_001}, "20,000 characters"),
        ({"ad_id": 1, "title": 5}, "title"),
        ({"ad_id": True, "title": "x"}, "found True"),
        ({"ad_id": 1.0, "title": "x"}, "found 1.0"),
        ([1], "expected an object, found list"),
    ],
)
def test_a_wrong_line_says_what_is_wrong_and_spares_the_others(line: object, said: str) -> None:
    wrong, good = parse_manifest(manifest(line, {"ad_id": 9, "title": "x"}), {})
    assert isinstance(wrong.ad, ServingError)
    assert said in wrong.ad.detail
    assert isinstance(good.ad, Ad)


def test_lines_are_counted_as_they_stand_in_the_manifest() -> None:
    lines = parse_manifest(b'\n{"ad_id": 1, "title": "x"}\n  \n{', {})
    assert [line.number for line in lines] == [2, 4]


def test_an_ad_comes_once_in_a_batch() -> None:
    line = {"ad_id": 1, "title": "x"}
    first, second = parse_manifest(manifest(line, line), {})
    assert isinstance(first.ad, Ad)
    assert isinstance(second.ad, InvalidContentError)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_manifest_has_1_to_1000_lines(count: int) -> None:
    with pytest.raises(InvalidRequestError, match="1-1,000 lines"):
        parse_manifest(manifest(*({"ad_id": i + 1, "title": "x"} for i in range(count))), {})


def test_the_content_hash_tells_fields_apart() -> None:
    ads = [make_ad(1, "ab", "c", None), make_ad(1, "a", "bc", None), make_ad(1, "", "", b"abc")]
    assert len({ad.content_hash() for ad in ads}) == 3
    assert ads[0].content_hash() == make_ad(2, "ab", "c", None).content_hash()
    parts = (b"", b"ab", b"c")
    expected = b"".join(len(p).to_bytes(8, "little") + p for p in parts)
    assert ads[0].content_hash() == hashlib.sha256(expected).digest()


def test_words_are_title_and_text() -> None:
    assert make_ad(1, " red shoes ", "on sale", None).words == "red shoes on sale"
    assert make_ad(1, "", "on sale", None).words == "on sale"


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(InvalidContentError, match="title: expected Unicode text"):
        make_ad(1, "\ud800", "", None)
