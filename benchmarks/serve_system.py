"""The Tessera that is measured: one that runs already, or one started for the measurement.

In: `--url` and what belongs to it, or nothing. Out: a `System`: where it answers, which ads it
holds, and which store and models lie below it (None where that is not known, so that the peers
below the front door are left out and not made up).
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey
from feature_store.ports import free_port

from .errors import BenchmarkError

FIRST_AD = 1_000_000_000  # ads written here stand beside the catalogue's own
START_S = 600.0  # a first start also makes the bundles
STOP_S = 60.0


class NotServingError(BenchmarkError):
    """Tessera, or what it is compared with, did not start or is not there."""


@dataclass(frozen=True, slots=True)
class System:
    """ad_ids: int64 (n,), all HIT. redis, models: None when not known."""

    http: str
    grpc: str
    ad_ids: NDArray[np.int64]
    redis: str | None
    models: Path | None
    key: str | None = None


@contextmanager
def started(models: Path, ads: int, seed: int) -> Iterator[System]:
    """`python -m serving up` on free ports over an embedded store with `ads` more ads in it."""
    with EmbeddedValkey() as valkey, tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "up.json"
        ports = (free_port(), free_port())
        command = [sys.executable, "-m", "serving", "up", "--redis", valkey.url, "--no-llm"]
        command += ["--models", str(models), "--json", str(ready)]
        command += ["--port", str(ports[0]), "--grpc-port", str(ports[1])]
        process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
        try:
            served = _wait(process, ready)
            ids = _more_ads(valkey.url, ads, seed)
            yield System(served["http"], served["grpc"], ids, valkey.url, models)
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], ready: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None:
            raise NotServingError(
                f"`python -m serving up` ended with exit code {process.returncode}"
            )
        if time.monotonic() > deadline:
            raise NotServingError(f"`python -m serving up` was not ready after {START_S:.0f} s")
        time.sleep(0.1)
    served: dict[str, str] = json.loads(ready.read_bytes())["served"]
    return served


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, as a person would; killed only when that is not heard."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _more_ads(url: str, count: int, seed: int) -> NDArray[np.int64]:
    """Write `count` ads with random codes into the active version."""
    ids = np.arange(FIRST_AD, FIRST_AD + count, dtype=np.int64)
    codes = np.random.default_rng(seed).integers(0, 256, (count, 6), dtype=np.uint16)
    with FeatureStore.connect(url) as store:
        for at in range(0, count, 10_000):
            store.write(ids[at : at + 10_000], codes[at : at + 10_000])
    return ids
