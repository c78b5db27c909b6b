"""What a ranking service installs: numpy and a Redis client, nothing else; and it can look up."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from feature_store import FeatureStore

ROOT = Path(__file__).resolve().parents[2]
# What redis asks for on Pythons whose asyncio.timeout it does not trust.
BASE = ("numpy", "redis", *(("async-timeout",) if sys.version_info < (3, 11, 3) else ()))


def locked(*names: str) -> str:
    """The lock file's entries of these packages, hashes and all."""
    text = (ROOT / "requirements.lock").read_text()
    entries = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    found = [entry for entry in entries if entry.split("==")[0] in names]
    assert len(found) == len(names)
    return "".join(found)


@pytest.fixture(scope="module")
def light_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an empty environment that holds only the base install."""
    folder = tmp_path_factory.mktemp("light")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"
    # A copy of what git tracks, so that no build output lands in the checkout.
    source.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(
        ["tar", "-cf", folder / "source.tar", "--null", "-T", "-", "--ignore-failed-read"],
        cwd=ROOT,
        input=files.stdout,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    subprocess.run(["tar", "-xf", folder / "source.tar", "-C", source], check=True)
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(wheel, check=True, stderr=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    (folder / "base.lock").write_text(locked(*BASE))
    pip[0] = str(python)
    install = [*pip, "install", "--no-deps", "--require-hashes", "-r", folder / "base.lock"]
    subprocess.run(install, check=True, stderr=subprocess.DEVNULL)
    subprocess.run([*pip, "install", "--no-deps", *folder.glob("*.whl")], check=True)
    return python


def test_base_install_looks_up(light_python: Path, valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url, namespace="light") as store:
        store.write([7], [[1, 2, 3, 4, 5, 6]], [0])
    script = textwrap.dedent(f"""
        from feature_store import FeatureStore, Status
        store = FeatureStore.connect({valkey_url!r}, namespace="light")
        found = store.lookup([7, 8])
        assert found.codes[0].tolist() == [1, 2, 3, 4, 5, 6], found.codes
        assert found.status.tolist() == [Status.HIT, Status.MISS], found.status
        import importlib.metadata
        print(sorted(d.metadata["Name"].lower() for d in importlib.metadata.distributions()))
    """)
    done = subprocess.run(
        [light_python, "-W", "error", "-c", script],
        cwd=light_python.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted([*BASE, "pip", "setuptools", "tessera"]))


def test_the_rest_names_its_extra(light_python: Path) -> None:
    for package, extra in (("serving", "serving"), ("export", "export")):
        done = subprocess.run(
            [light_python, "-m", package, "--help"],
            cwd=light_python.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        message = done.stdout + done.stderr
        assert "Traceback" not in message
        assert done.returncode == 0 or f"tessera[{extra}]" in message
