"""Every application's own page: its examples work, and requests made from it find no 5xx."""

import re
from typing import Any

import httpx
import pytest

from tests.serving.fuzzing import fuzz
from tests.serving.support import System

PREFIXES = (
    "/v1/lookup",
    "/v1/ads",
    "/v1/encode",
    "/v1/checks",
    "/v2",
    "/v2/models/image_encoder",
    "/v2/models/text_encoder",
    "/v2/models/semantic_id",
)
# Routes whose body need not be JSON, or that have none.
BODILESS = re.compile(r"/unload$")
SERVED = ("image_encoder", "text_encoder", "semantic_id")


def belongs_to_others(parameters: dict[str, Any]) -> bool:
    """Ads of the catalogue and of other tests, and models that they use."""
    text = str(parameters.get("ad_id", ""))
    ad_id = int(text) if text.isascii() and text.isdigit() else 0
    return 0 < ad_id < 10**12 or parameters.get("name") in SERVED


def test_these_are_all_applications(system: System) -> None:
    assert set(system.report["served"]["applications"].values()) == set(PREFIXES)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_requests_from_the_openapi_document_find_no_5xx(system: System, prefix: str) -> None:
    with system.client() as client:
        # Random ads are read by the language model, which answers in its own time.
        found, broken = fuzz(client, prefix, examples=12, within_s=10, spare=belongs_to_others)
        assert broken == []
        # It speaks to the routes themselves: some requests are right, and some are refused.
        assert found[200] >= 1
        assert found[400] + found[404] + found[415] + found[422] >= 1
        assert found.total() >= 10
        assert client.get(f"{prefix}/readyz").status_code == 200


def send(client: httpx.Client, method: str, path: str, kind: str, value: Any) -> httpx.Response:
    if kind == "multipart/form-data":
        parts = {name: (None, text) for name, text in value.items()}
        return client.request(method, path, files=parts)
    return client.request(method, path, json=value)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_examples_of_the_page_work(system: System, prefix: str, fresh_ids: range) -> None:
    tried = 0
    with system.client() as client:
        # People decide on ads that are there.
        put = client.put(f"/v1/ads/{fresh_ids[0]}", files={"title": (None, "red shoes")})
        assert put.status_code == 200
        paths = client.get(f"{prefix}/openapi.json").json()["paths"]
        for path, methods in paths.items():
            for method, route in methods.items():
                contents = route.get("requestBody", {}).get("content", {})
                served = route["summary"] if "{version}" in path else ""
                if served or not contents:
                    continue  # the same route with a version in its path
                url = prefix + path.format(ad_id=fresh_ids[0], name="semantic_id")
                examples = {
                    (kind, name): example["value"]
                    for kind, content in contents.items()
                    for name, example in content.get("examples", {}).items()
                }
                assert examples or BODILESS.search(path), f"{method} {url} shows no example"
                for (kind, name), value in examples.items():
                    answer = send(client, method, url, kind, value)
                    assert answer.status_code == 200, f"{url} {name}: {answer.text}"
                    assert "problem" not in answer.text, f"{url} {name}: {answer.text}"
                    tried += 1
    assert tried >= 1
