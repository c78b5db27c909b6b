"""`python -m serving up --models URL`: bundles are read from an object store, and only read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from export import Repository
from serving.config import CHECKS, REFERENCE_MODELS, Settings
from serving.errors import ConfigurationError
from serving.up.inputs import open_bundles
from serving.up.options import check_models


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def client(s3_url: str) -> Iterator[Any]:
    made = botocore.session.get_session().create_client("s3")
    yield made
    made.close()


def _objects(client: Any, url: str) -> dict[str, str]:
    found = client.list_objects_v2(Bucket=url.split("/")[2]).get("Contents", [])
    return {item["Key"]: item["ETag"] for item in found}


def _publish(url: str, make_draft: Any, names: tuple[str, ...], cache: Path) -> None:
    for name in names:
        Repository(url, cache=cache).publish(make_draft(name=name, payload=name.encode()))


def test_what_models_may_be(s3_url: str, tmp_path: Path) -> None:
    assert check_models(s3_url) == s3_url
    assert check_models(Path(s3_url)) == s3_url  # what a setting makes of a URL
    assert check_models(f"file://{tmp_path}") == tmp_path
    assert check_models("var/models") == Path.cwd() / "var" / "models"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="found a file"):
        check_models(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="holds credentials") as caught:
        check_models("s3://key:very-secret@bucket/models")
    assert "very-secret" not in str(caught.value)


def test_bundles_are_downloaded_and_the_store_is_only_read(
    s3_url: str, client: Any, make_draft: Any, tmp_path: Path, home: Path, capfd: Any
) -> None:
    _publish(s3_url, make_draft, (*REFERENCE_MODELS, CHECKS), tmp_path / "publisher")
    before = _objects(client, s3_url)
    opened = open_bundles(s3_url, llm=False)
    assert opened.models == dict.fromkeys((CHECKS, *REFERENCE_MODELS), "1")
    assert _objects(client, s3_url) == before
    cache = home / ".cache" / "tessera" / "bundles"
    assert str(cache) in capfd.readouterr().err
    # A replica, which knows the setting alone, opens the same copy.
    settings = Settings.load({"models": s3_url})
    bundle = Repository(settings.models).open("image_encoder")
    assert bundle.directory.parent == cache
    assert bundle.path().read_bytes() == b"image_encoder"


def test_what_is_missing_is_named_and_not_published(
    s3_url: str, client: Any, make_draft: Any, tmp_path: Path, home: Path
) -> None:
    _publish(s3_url, make_draft, REFERENCE_MODELS[1:], tmp_path / "publisher")
    before = _objects(client, s3_url)
    with pytest.raises(ConfigurationError, match=f"expected checks, {REFERENCE_MODELS[0]}, which"):
        open_bundles(s3_url, llm=True)
    assert _objects(client, s3_url) == before


def test_a_damaged_bundle_starts_nothing(
    s3_url: str, client: Any, make_draft: Any, tmp_path: Path, home: Path
) -> None:
    _publish(s3_url, make_draft, REFERENCE_MODELS, tmp_path / "publisher")
    key = next(key for key in _objects(client, s3_url) if "/.files/" in key)
    client.put_object(Bucket=s3_url.split("/")[2], Key=key, Body=b"other")
    with pytest.raises(ConfigurationError, match=r"--models s3://.*expected"):
        open_bundles(s3_url, llm=False)
