"""Rows between JSON, columns and bytes: what is accepted, refused, and written."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store import Flag, Found, Status
from serving.errors import InvalidIdsError, InvalidRequestError
from serving.lookup import rows
from serving.schema import MAX_AD_ID, LookupRequest, LookupResponse

AD_IDS = st.integers(1, MAX_AD_ID)


@given(st.lists(st.one_of(AD_IDS, AD_IDS.map(str)), min_size=1, max_size=50))
def test_ids_keep_order_and_duplicates(values: list[int | str]) -> None:
    body = orjson.dumps({"ad_ids": values})
    assert rows.parse_query(body).ids.tolist() == [int(value) for value in values]
    LookupRequest.model_validate_json(body)  # the documented shape takes the same


@given(st.lists(AD_IDS, min_size=1, max_size=50))
def test_columns_are_little_endian_int64(values: list[int]) -> None:
    assert rows.parse_columns(np.array(values, "<i8").tobytes()).tolist() == values


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**63, 2**64, 1.0, True, None, "", "x", "+1", "-1", " 1", "1_0", "1.0", "9" * 20, []],
)
def test_what_is_no_id_is_named(value: object) -> None:
    with pytest.raises(InvalidIdsError, match=r"1\.\.2"):
        rows.parse_ids([1, value])


@pytest.mark.parametrize("values", [[], None, "1", {}, list(range(1, 100_002))])
def test_too_few_and_too_many(values: object) -> None:
    with pytest.raises(InvalidIdsError):
        rows.parse_ids(values)


@pytest.mark.parametrize("value", ["x" * 10_000, orjson.loads("[" * 1_000 + "]" * 1_000)])
def test_a_long_or_deep_value_is_not_repeated_in_full(value: object) -> None:
    with pytest.raises(InvalidIdsError) as raised:
        rows.parse_ids([value])
    assert len(raised.value.detail) < 200


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"ad_ids": [1], "version": ""}, InvalidRequestError),
        ({"ad_ids": [1], "version": 1}, InvalidRequestError),
        ({"ad_ids": [1], "deadline_ms": True}, InvalidRequestError),
        ({"ad_ids": [1], "deadline_ms": -1}, InvalidRequestError),
        ({"ad_ids": [1], "deadline": 5}, InvalidRequestError),
        ({}, InvalidIdsError),
        ([1], InvalidRequestError),
    ],
)
def test_wrong_queries(body: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        rows.parse_query(orjson.dumps(body))


def test_a_query_has_its_deadline_in_seconds() -> None:
    query = rows.parse_query(b'{"ad_ids": ["7"], "version": "e1-s1", "deadline_ms": 5}')
    assert (query.version, query.deadline_s) == ("e1-s1", 0.005)


def found(*statuses: Status, flags: int = 0) -> Found:
    n = len(statuses)
    status = np.array(statuses, np.uint8)
    shown = np.isin(status, (Status.HIT, Status.STALE))
    codes = np.full((n, 6), 65535, np.uint16)
    codes[shown] = np.arange(6)
    return Found(codes, status, np.where(shown, flags, 0).astype(np.uint16), "e1-s1")


def test_the_answer_has_the_documented_shape_and_hides_what_is_no_hit() -> None:
    answer = json.loads(rows.to_json(found(*Status, flags=Flag.PENDING | Flag.REVIEW)))
    LookupResponse.model_validate(answer)
    assert answer["status"] == ["MISS", "HIT", "STALE", "UNAVAILABLE", "BLOCKED"]
    shown = [row is not None for row in answer["codes"]]
    assert shown == [False, True, True, False, False]
    assert answer["codes"][1] == [0, 1, 2, 3, 4, 5]
    assert answer["flags"] == [[], ["PENDING", "REVIEW"], ["PENDING", "REVIEW"], [], []]
    assert [entry["what"] for entry in answer["degraded"]] == ["rows", "rows"]
    assert "1 of 5 rows UNAVAILABLE" in answer["degraded"][0]["reason"]


def test_a_whole_answer_is_not_degraded() -> None:
    answer = json.loads(rows.to_json(found(Status.HIT, Status.MISS, Status.BLOCKED)))
    assert answer["degraded"] is None


def test_counts_name_only_what_occurs() -> None:
    counts = rows.status_counts(found(Status.HIT, Status.HIT, Status.MISS).status)
    assert counts == [("MISS", 1), ("HIT", 2)]


def test_flag_names_cover_every_bit() -> None:
    assert rows.flag_names(0) == []
    assert rows.flag_names(sum(Flag)) == [flag.name for flag in Flag]
