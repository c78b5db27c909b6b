"""Structured logs: one JSON line, the request's id in it, and no secret."""

import json
import logging

from serving.logs import JsonFormatter, request_id


def formatted(message: str, *args: object, **fields: object) -> dict[str, object]:
    record = logging.LogRecord("tessera.x", logging.INFO, __file__, 1, message, args, None)
    record.fields = fields
    line: dict[str, object] = json.loads(JsonFormatter("x").format(record))
    return line


def test_a_line_carries_level_application_fields_and_request_id() -> None:
    token = request_id.set("r1")
    line = formatted("took %d", 3, route="/v1", ms=1.5)
    request_id.reset(token)
    assert line["message"] == "took 3"
    assert (line["level"], line["application"], line["request_id"]) == ("info", "x", "r1")
    assert (line["route"], line["ms"]) == ("/v1", 1.5)
    assert str(line["ts"]).endswith("Z")


def test_outside_of_a_request_there_is_no_id() -> None:
    assert "request_id" not in formatted("started")


def test_secrets_are_cut_out() -> None:
    line = formatted(
        "cannot reach redis://me:hush@host:1 with Bearer hush",
        authorization="hush",
        api_key="hush",
        url="rediss://:hush@h",
        name="shown",
    )
    assert "hush" not in json.dumps(line)
    assert line["name"] == "shown"
    assert "redis://***@host:1" in str(line["message"])
