"""Every shell and Python block of the README runs, in order, against a Tessera that it started."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
UP = 'make up ARGS="--once --json var/readme.json"'


def runnable(block: str) -> str:
    """The block as a reader would run it, without waiting for a Ctrl-C and without this suite."""
    block = re.sub(r"^make test\b.*\n", "", block, flags=re.MULTILINE)
    return re.sub(r"^make up\s*(#.*)?$", UP, block, flags=re.MULTILINE)


def starts_tessera(block: str) -> bool:
    return "make up" in block or "-m serving up" in block


@pytest.fixture(scope="module")
def tessera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What stays running after `make up`, on its default ports."""
    ready = tmp_path_factory.mktemp("up") / "ready.json"
    command = [sys.executable, "-m", "serving", "up", "--json", str(ready)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        deadline = time.monotonic() + 300
        while not ready.exists():
            assert process.poll() is None, "`up` ended before it was ready"
            assert time.monotonic() < deadline, "`up` was not ready within 300 s"
            time.sleep(0.2)
        assert json.loads(ready.read_text())["stages"]["lookup"]["count"] > 0
        yield
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0


def run(language: str, block: str) -> None:
    command = ["bash", "-euo", "pipefail", "-c", block]
    if language == "python":
        command = [sys.executable, "-W", "error", "-c", block]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_readme_shows_both_commands() -> None:
    shell = "".join(block for language, block in BLOCKS if language == "sh")
    assert re.search(r"^make up\b", shell, flags=re.MULTILINE)
    assert re.search(r"^make test\b", shell, flags=re.MULTILINE)


STARTING = [block for block in BLOCKS if starts_tessera(block[1])]
ASKING = [block for block in BLOCKS if not starts_tessera(block[1])]


# Those that start a Tessera of their own run first: there is one a machine.
@pytest.mark.parametrize(("language", "block"), STARTING)
def test_starting_blocks_run(language: str, block: str) -> None:
    run(language, runnable(block))


@pytest.mark.parametrize(("language", "block"), ASKING)
def test_asking_blocks_run(tessera: None, language: str, block: str) -> None:
    run(language, runnable(block))
