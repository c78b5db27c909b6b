"""k8s/ is a folder of scripts, not a package: tests import them as `python k8s/check.py` does."""

import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "k8s"
sys.path.insert(0, str(FOLDER))


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    """The committed rendering of the dev overlay, fresh for each test to break."""
    import manifests

    return manifests.read(manifests.RENDERED / "dev.yaml")
