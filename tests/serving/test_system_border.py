"""The border of every application: keys on every route, health without, metrics, request ids."""

import json
import re
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serving.support import System

PLACEHOLDER = re.compile(r"\{[^}]+\}")
WRITES = {("PUT", "/v1/ads/{ad_id}"), ("DELETE", "/v1/ads/{ad_id}"), ("POST", "/v1/ads/batch")}
ADMINS = {
    ("POST", "/v1/ads/{ad_id}/block"),
    ("POST", "/v1/ads/{ad_id}/unblock"),
    ("GET", "/v1/checks/owed"),
    ("POST", "/v1/checks/owed/revive"),
}
HEALTH = re.compile(
    r"/(healthz|readyz)$|^/v2/health/(live|ready)$|^/v2/models/[^/]+(/versions/[^/]+)?/ready$"
)


def routes(system: System) -> list[tuple[str, str]]:
    """(method, path) of every route of every application, from its own OpenAPI page."""
    found = []
    with system.client("all") as client:
        for prefix in system.report["served"]["applications"].values():
            document = client.get(f"{prefix}/openapi.json")
            assert document.status_code == 200, prefix
            page = client.get(f"{prefix}/docs")
            assert page.status_code == 200
            assert "<script" not in page.text
            for path, methods in document.json()["paths"].items():
                found += [(method.upper(), prefix + path) for method in methods]
    return found


def call(client: httpx.Client, method: str, path: str) -> int:
    return client.request(method, PLACEHOLDER.sub("1", path)).status_code


def test_every_route_needs_a_key_and_health_none(system: System) -> None:
    found = routes(system)
    applications = system.report["served"]["applications"]
    assert len(found) > 3 * len(applications)
    with system.client(None) as nobody:
        wrong = httpx.Client(
            base_url=system.http, headers={"authorization": "Bearer wrong"}, trust_env=False
        )
        with wrong:
            for method, path in found:
                if HEALTH.search(path):
                    assert call(nobody, method, path) in (200, 404), path  # no such version
                else:
                    assert call(nobody, method, path) == 401, path
                    assert call(wrong, method, path) == 401, path
        for prefix in applications.values():
            assert call(nobody, "GET", f"{prefix}/openapi.json") == 401
            assert call(nobody, "GET", f"{prefix}/healthz") == 200
            assert call(nobody, "GET", f"{prefix}/readyz") == 200


def test_every_route_needs_its_scope(system: System) -> None:
    seen = set()
    for method, path in routes(system):
        if HEALTH.search(path):
            continue
        if (method, path) in ADMINS or "/v2/repository/" in path:
            lacking = ("read", "write")
        elif (method, path) in WRITES:
            lacking = ("read", "admin")
        else:
            lacking = ("write",)
        seen.add((method, path))
        for key in lacking:
            with system.client(key) as client:
                assert call(client, method, path) == 403, (method, path, key)
    assert seen >= WRITES | ADMINS | {("POST", "/v1/lookup")}


def test_requests_latency_and_errors_of_every_application_are_scraped(system: System) -> None:
    applications = system.report["served"]["applications"]
    with system.client("read") as client:
        for prefix in applications.values():
            client.get(f"{prefix}/no/such/route")
        client.post("/v1/lookup", json={"ad_ids": [1]})
    missing = {"none scraped yet"}
    deadline = time.monotonic() + 60
    while missing and time.monotonic() < deadline:
        text = httpx.get(system.report["served"]["metrics"], trust_env=False).text
        missing = {
            (name, metric)
            for name in applications
            for metric in (
                "ray_tessera_requests_total",
                "ray_tessera_request_latency_ms_bucket",
                "ray_tessera_errors_total",
            )
            if not re.search(rf'^{metric}{{[^}}]*application="{name}"', text, re.MULTILINE)
        }
        time.sleep(0.5)
    assert not missing
    assert re.search(r'^ray_tessera_lookup_rows_total{.*status="HIT"', text, re.MULTILINE)


def test_a_request_id_goes_through_and_is_made_otherwise(system: System) -> None:
    with system.client("read") as client:
        kept = client.post("/v1/lookup", json={"ad_ids": [1]}, headers={"x-request-id": "mine-1"})
        made = client.post("/v1/lookup", json={"ad_ids": [1]})
    assert kept.headers.get_list("x-request-id") == ["mine-1"]
    assert made.headers["x-request-id"]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"ad_ids": [1]}', "text/plain", 415),
        (b"", "application/json", 400),
    ],
)
def test_bodies_that_are_no_json(
    system: System, content: bytes, content_type: str, status: int
) -> None:
    with system.client("read") as client:
        answer = client.post("/v1/lookup", content=content, headers={"content-type": content_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_unknown_routes_and_methods_are_problems(system: System) -> None:
    with system.client("all") as client:
        assert client.get("/v1/lookup/nowhere").status_code == 404
        assert client.get("/v1/lookup").status_code == 405
        assert client.get("/v1/lookup").json()["type"] == "urn:tessera:problem:method-not-allowed"
        under_v2 = client.get("/v2/models/image_encoder/nowhere")
    assert under_v2.status_code == 404
    assert set(under_v2.json()) == {"error"}


def test_a_timeout_header_that_is_no_time_is_refused(system: System) -> None:
    with system.client("read") as client:
        answer = client.post(
            "/v1/lookup", json={"ad_ids": [1]}, headers={"x-request-timeout-seconds": "soon"}
        )
    assert 400 <= answer.status_code < 500


def worker_logs(system: System) -> str:
    folder = Path(system.report["served"]["logs"])
    return "\n".join(path.read_text() for path in folder.glob("worker-*.err"))


def test_logs_are_json_with_the_requests_id_and_without_keys(system: System) -> None:
    mine = f"trace-{time.monotonic_ns()}"
    with system.client("read") as client:
        client.post("/v1/lookup", json={"ad_ids": [0]}, headers={"x-request-id": mine})
    deadline = time.monotonic() + 30
    found: list[dict[str, object]] = []
    while not found and time.monotonic() < deadline:
        lines = [line for line in worker_logs(system).splitlines() if mine in line]
        found = [json.loads(line) for line in lines]
        time.sleep(0.05)
    assert [line["request_id"] for line in found] == [mine]
    assert (found[0]["application"], found[0]["route"]) == ("lookup", "/v1/lookup")
    assert (found[0]["status"], found[0]["problem"]) == ("422", "invalid-ad-ids")
    said = worker_logs(system) + system.log.read_text()
    assert not any(key in said for key in system.keys.values())


def test_no_replica_of_the_index_or_lookup_path_loads_torch(system: System) -> None:
    replicas = [
        process
        for process in psutil.Process(system.process.pid).children(recursive=True)
        if process.name().startswith("ray::ServeRepl")
    ]
    named = {
        name: process
        for process in replicas
        for name in ("lookup", "ingest", "encode", "models", "image_encoder")
        if f":{name}:" in " ".join(process.cmdline())
    }
    assert len(named) == 5
    for name, process in named.items():
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text(), name
