"""The RayService's own Serve configuration, deployed as KubeRay has it deployed, answers.

KubeRay starts Ray with the variables of the manifest and hands `serveConfigV2` to Serve. So does
this test, on one machine: `serve run` with the same document and the same variables. Changed are
only what a pod has and this machine has not: paths, ports, the store's address.
"""

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import manifests
import psutil
import pytest
import yaml

from feature_store import FeatureStore
from feature_store.ports import free_port, free_range
from serving.config import private_haproxy, private_replicas
from serving.up.inputs import open_bundles

KEY = "a-key-of-this-test"
START_S = 180
STOP_S = 60


@dataclass(frozen=True)
class Deployed:
    """Where the applications answer, and their route prefixes by name."""

    url: str
    prefixes: dict[str, str]


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        late = time.monotonic() > deadline
        if process.poll() is not None or late:
            said = log.read_text(errors="replace")[-3000:]
            pytest.fail(f"{'not ready' if late else 'ended'}: {said}")
        time.sleep(0.2)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: HAProxy's sockets lie in it, and a socket's path has at most 97 characters."""
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def deployed(folder: Path, valkey_server: Any) -> Iterator[Deployed]:
    models = Path("var/models").absolute()
    open_bundles(models, llm=True)
    with FeatureStore.connect(valkey_server.url) as store:
        store.write([7], [[1, 2, 3, 4, 5, 6]])
    keys = folder / "keys.jsonl"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys.write_text(json.dumps({"name": "t", "key_sha256": digest, "scopes": ["read"]}), "utf-8")

    [service] = manifests.of_kind(manifests.read(manifests.RENDERED / "dev.yaml"), "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    config["http_options"] |= {"host": "127.0.0.1", "port": free_port()}
    config["grpc_options"] |= {"port": free_port()}
    (folder / "serve.yaml").write_text(yaml.safe_dump(config), "utf-8")

    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    given = {e["name"]: e.get("value", "") for e in head["containers"][0]["env"]}
    (folder / "haproxy").mkdir()
    private = private_haproxy(folder / "haproxy", [free_port() for _ in range(4)])
    here = (
        private
        | private_replicas(free_range(128))
        | {
            "TESSERA_MODELS": str(models),
            "TESSERA_API_KEYS_FILE": str(keys),
            "TESSERA_REDIS_URL": valkey_server.url,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # KubeRay gives it from a Secret of its own
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",  # nobody is left to drain for
            "RAY_TMPDIR": str(folder),
        }
    )
    command = [str(Path(sys.executable).with_name("serve")), "run", str(folder / "serve.yaml")]
    log = folder / "serve.log"
    url = f"http://127.0.0.1:{config['http_options']['port']}"
    prefixes = {a["name"]: a["route_prefix"] for a in config["applications"]}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=os.environ | given | here, stdout=out, stderr=out, cwd=Path.cwd()
        )
        try:
            until(lambda: all(ready(url + prefix) for prefix in prefixes.values()), process, log)
            yield Deployed(url, prefixes)
        finally:
            stop(process)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C; what is left after a while is killed: it would work on the next tests' store."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
    _, left = psutil.wait_procs(started, timeout=10)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, timeout=10)


def test_every_application_of_the_manifest_answers(deployed: Deployed) -> None:
    assert {"lookup", "ingest", "encode", "models", "checks"} <= deployed.prefixes.keys()
    for prefix in deployed.prefixes.values():
        assert httpx.get(f"{deployed.url}{prefix}/healthz").status_code == 200


def test_it_asks_for_a_key_and_looks_up(deployed: Deployed) -> None:
    url, body = f"{deployed.url}/v1/lookup", {"ad_ids": [7, 8], "deadline_ms": 5000}
    assert httpx.post(url, json=body).status_code == 401
    answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert answer.json()["status"] == ["HIT", "MISS"]
    assert answer.json()["codes"] == [[1, 2, 3, 4, 5, 6], None]
