"""Serving with a public key configured: it opens what that key signed, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from export import Repository
from export.errors import SignatureError
from export.signature import make_keys
from serving import bundles
from serving.config import REFERENCE_MODELS, Settings
from serving.errors import ConfigurationError
from serving.up.inputs import open_bundles


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private", tmp_path / "public"
    make_keys(private, public)
    return private, public


def _publish(root: Path, make_draft: Any, sign: Path | None) -> None:
    for name in REFERENCE_MODELS:
        Repository(root, private_key=sign).publish(make_draft(name=name, payload=name.encode()))


def test_what_the_key_signed_is_opened_and_nothing_is_made(
    keys: tuple[Path, Path], make_draft: Any, tmp_path: Path
) -> None:
    private, public = keys
    root = tmp_path / "models"
    _publish(root, make_draft, private)
    opened = open_bundles(root, llm=False, key=public)
    assert opened.models == dict.fromkeys(REFERENCE_MODELS, "1")
    settings = Settings.load({"models": str(root), "models_public_key": str(public)})
    assert bundles.repository(settings).open("image_encoder").manifest.version == "1"


def test_what_is_not_signed_is_refused_by_up_and_by_replicas(
    keys: tuple[Path, Path], make_draft: Any, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    _publish(root, make_draft, None)
    with pytest.raises(ConfigurationError, match="not signed"):
        open_bundles(root, llm=False, key=keys[1])
    settings = Settings.load({"models": str(root), "models_public_key": str(keys[1])})
    with pytest.raises(SignatureError, match="not signed"):
        bundles.repository(settings).open("image_encoder")


def test_what_is_missing_is_not_made_without_the_private_key(
    keys: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"shipped --out .* --sign KEY"):
        open_bundles(tmp_path / "models", llm=False, key=keys[1])
    assert not (tmp_path / "models").exists()


def test_serving_opens_bundles_in_one_way() -> None:
    """A `Repository` made elsewhere would not ask for the signature."""
    files = Path("serving").rglob("*.py")
    made = {path.as_posix() for path in files if "Repository(" in path.read_text("utf-8")}
    assert made == {"serving/bundles.py", "serving/up/inputs.py", "serving/up/options.py"}
