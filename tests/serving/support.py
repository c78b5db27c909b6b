"""What the tests of a running system share: how it is started, its creatives, its clients."""

import io
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
READY_S = 420.0  # the first start makes the bundles
CLASSES = ("circle", "square", "triangle")
GOOD, BAD = 12, 2


def picture(seed: int, size: int = 120) -> bytes:
    """A JPEG of random blocks, the same for the same seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize((size, size), Image.Resampling.NEAREST).save(out, "JPEG")
    return out.getvalue()


def write_creatives(folder: Path, good: int = GOOD) -> Path:
    """Class folders with good pictures, a text file named .jpg and a truncated JPEG."""
    for number in range(good):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (folder / "circle" / "text.jpg").write_text("I am no picture")
    (folder / "square" / "torn.jpg").write_bytes(picture(99)[:400])
    return folder


def start_up(*arguments: str, keys: Path | None = None, log: Path) -> "subprocess.Popen[bytes]":
    """`python -m serving up ...` in a session of its own, its output in `log`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TESSERA_")}
    if keys is not None:
        environment["TESSERA_API_KEYS_FILE"] = str(keys)
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "serving", "up", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def wait_for_file(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until `up` has written its JSON; fails with its output when it ends before."""
    deadline = time.monotonic() + READY_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait(60)
            pytest.fail(f"`up` was not ready (code {process.returncode}):\n{log.read_text()}")
        time.sleep(0.05)


@dataclass(frozen=True)
class System:
    """A running system: its front doors, its keys by name, and what it wrote."""

    http: str
    grpc: str
    keys: dict[str, str]
    key_file: Path
    report: dict[str, Any]
    creatives: Path
    log: Path
    process: "subprocess.Popen[bytes]"

    def client(self, key: str | None = "all") -> httpx.Client:
        """An HTTP client that shows the key of that name; None: none."""
        headers = {"authorization": f"Bearer {self.keys[key]}"} if key else {}
        return httpx.Client(base_url=self.http, headers=headers, timeout=60, trust_env=False)

    def metadata(self, application: str, key: str | None = "all") -> list[tuple[str, str]]:
        """gRPC metadata for an application."""
        bearer = [("authorization", f"Bearer {self.keys[key]}")] if key else []
        return [("application", application), *bearer]
