"""Repositories in object stores: the promises of a folder, without its rename."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import botocore.session
import pytest

from export import Repository
from export.__main__ import main
from export.errors import (
    IntegrityError,
    ManifestError,
    MissingExtraError,
    NotFoundError,
    RepositoryError,
    SignatureError,
)

Open = Callable[..., Repository]


@pytest.fixture(params=["s3", "memory", "file"])
def reopened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one and the same repository as often as it is called, with a cache of one's own."""
    if request.param == "s3":
        url = request.getfixturevalue("s3_url")
    elif request.param == "memory":
        url = f"memory://{uuid4().hex}/models"
    else:
        url = f"file://{tmp_path}/repository"
    return lambda cache="cache", **keys: Repository(url, cache=tmp_path / cache, **keys)


@pytest.fixture
def s3(s3_url: str, tmp_path: Path) -> Open:
    return lambda cache="cache", **keys: Repository(s3_url, cache=tmp_path / cache, **keys)


@pytest.fixture
def client(s3_url: str) -> Iterator[Any]:
    made = botocore.session.get_session().create_client("s3")
    yield made
    made.close()


def _bucket(url: str) -> str:
    return url.split("/")[2]


def _keys(client: Any, url: str) -> list[str]:
    found = client.list_objects_v2(Bucket=_bucket(url)).get("Contents", [])
    return [item["Key"].removeprefix("team/models/") for item in found]


def test_publish_open_pin_roll_back(reopened: Open, make_draft: Any) -> None:
    repository = reopened()
    assert repository.names() == []
    with pytest.raises(NotFoundError, match="no bundle 'encoder'"):
        repository.open("encoder")
    for payload in (b"one", b"two", b"three"):
        published = repository.publish(make_draft(payload=payload))
        assert published.path().read_bytes() == payload
    other = reopened("another")
    assert other.names() == ["encoder"]
    assert other.versions("encoder") == ["1", "2", "3"]
    opened = other.open("encoder")
    assert opened.manifest == published.manifest
    assert opened.path().read_bytes() == b"three"
    assert opened.file("sub/tokenizer.json").read_bytes() == b"{}"
    other.pin("encoder", "2")
    assert repository.latest("encoder") == "2"
    assert repository.rollback("encoder") == "1"
    assert other.open("encoder").path().read_bytes() == b"one"
    other.pin("encoder", "latest")
    assert repository.latest("encoder") == "3"
    with pytest.raises(NotFoundError, match="no version 9"):
        repository.pin("encoder", "9")
    with pytest.raises(NotFoundError, match="no version 7"):
        repository.open("encoder", "7")


def test_two_publishers_never_win_one_version(
    reopened: Open, make_draft: Any, publish_at_once: Any
) -> None:
    drafts = [make_draft(payload=bytes([number])) for number in range(6)]
    won = publish_at_once(lambda number: reopened(f"cache-{number}"), drafts)
    repository = reopened()
    for bundle in won:
        opened = repository.open("encoder", bundle.manifest.version)
        assert opened.path().read_bytes() == bundle.path().read_bytes()


def test_numbers_are_never_given_twice(s3: Open, s3_url: str, client: Any, make_draft: Any) -> None:
    repository = s3()
    for _ in range(2):
        repository.publish(make_draft())
    client.delete_object(Bucket=_bucket(s3_url), Key="team/models/encoder/2/manifest.json")
    assert s3().latest("encoder") == "1"
    assert repository.publish(make_draft()).manifest.version == "3"


def test_a_file_is_stored_once_and_downloaded_once(
    s3: Open, s3_url: str, client: Any, make_draft: Any, tmp_path: Path
) -> None:
    for _ in range(3):
        s3().publish(make_draft())
    assert len([key for key in _keys(client, s3_url) if key.startswith(".files/")]) == 2
    first = s3("fresh").open("encoder")
    for key in _keys(client, s3_url):
        if key.startswith(".files/"):
            client.delete_object(Bucket=_bucket(s3_url), Key=f"team/models/{key}")
    assert s3("fresh").open("encoder") == first
    with pytest.raises(IntegrityError, match="missing: publish the bundle again"):
        s3("empty").open("encoder")
    with pytest.raises(IntegrityError, match="missing"):
        s3("fresh").open("encoder", full=True)
    assert not list((tmp_path / "empty").glob("[0-9a-f]*"))


@pytest.mark.parametrize(
    ("key", "data", "message"),
    [
        (".files/", b"weightr", "expected SHA-256"),
        (".files/", b"short", "expected 7 bytes"),
        ("encoder/2/manifest.json", b"{", "not JSON"),
        ("encoder/2/manifest.json", b'{"format_version": 99}', "update tessera"),
    ],
)
def test_what_was_tampered_with_is_refused_and_the_rest_opens(
    s3: Open, s3_url: str, client: Any, make_draft: Any, key: str, data: bytes, message: str
) -> None:
    first = s3().publish(make_draft(payload=b"other"))
    second = s3().publish(make_draft())
    if key == ".files/":
        key += second.manifest.files["model.onnx"].sha256
    client.put_object(Bucket=_bucket(s3_url), Key=f"team/models/{key}", Body=data)
    with pytest.raises((IntegrityError, ManifestError), match=message):
        s3("fresh").open("encoder", "2")
    assert s3("fresh").open("encoder", "1").path().read_bytes() == first.path().read_bytes()


def test_a_climbing_path_and_a_moved_manifest_are_refused(
    s3: Open, s3_url: str, client: Any, make_draft: Any
) -> None:
    s3().publish(make_draft())
    key = "team/models/encoder/1/manifest.json"
    data = client.get_object(Bucket=_bucket(s3_url), Key=key)["Body"].read()
    climbing = data.replace(b"sub/tokenizer.json", b"../../tokenizer.js")
    for number, body in ((2, climbing), (3, data)):
        target = f"team/models/encoder/{number}/manifest.json"
        client.put_object(Bucket=_bucket(s3_url), Key=target, Body=body)
    with pytest.raises(ManifestError, match="not a plain path"):
        s3("fresh").open("encoder", "2")
    with pytest.raises(IntegrityError, match="says that it is encoder 1"):
        s3("fresh").open("encoder", "3")


def test_a_damaged_local_copy_is_downloaded_again(s3: Open, make_draft: Any) -> None:
    published = s3().publish(make_draft())
    for damage in (b"weightr", b"more than there was"):
        file = s3("fresh").open("encoder").path()
        file.chmod(0o644)
        file.write_bytes(damage)
        assert s3("fresh").open("encoder").path().read_bytes() == b"weights"
    assert s3("fresh").open("encoder", full=True).manifest == published.manifest


def test_many_open_at_once(s3: Open, make_draft: Any, tmp_path: Path) -> None:
    s3().publish(make_draft(payload=b"x" * 200_000))
    found: list[bytes] = []
    barrier = threading.Barrier(6)

    def read() -> None:
        repository = s3("shared")
        barrier.wait()
        found.append(repository.open("encoder").path().read_bytes())

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"x" * 200_000] * 6
    assert len(list((tmp_path / "shared").glob("[0-9a-f]*"))) == 1
    assert not list((tmp_path / "shared").glob(".staging-*"))


def test_signatures_are_asked_for_here_too(s3: Open, make_draft: Any, tmp_path: Path) -> None:
    from export.signature import make_keys

    private, public = tmp_path / "private", tmp_path / "public"
    make_keys(private, public)
    s3().publish(make_draft())
    with pytest.raises(SignatureError, match="not signed"):
        s3(public_key=public).open("encoder")
    s3(private_key=private).publish(make_draft())
    assert s3("fresh", public_key=public).open("encoder").manifest.version == "2"


def test_a_server_without_conditional_writes_is_refused(
    s3: Open, make_draft: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.responses import S3Response

    put = S3Response.put_object

    def overwrite(self: S3Response) -> object:
        self.headers = {k: v for k, v in self.headers.items() if k.lower() != "if-none-match"}
        return put(self)

    monkeypatch.setattr(S3Response, "put_object", overwrite)
    with pytest.raises(RepositoryError, match="If-None-Match"):
        s3().publish(make_draft())
    assert s3().versions("encoder") == []


def test_urls_that_cannot_be_repositories(
    s3_url: str, tmp_path: Path, make_draft: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RepositoryError, match="holds credentials") as caught:
        Repository("s3://key:very-secret@bucket/models")
    assert "very-secret" not in str(caught.value)
    with pytest.raises(RepositoryError, match="nowhere"):
        Repository("nowhere://bucket/models")
    with pytest.raises(MissingExtraError, match="driver for gs"):
        Repository("gs://bucket/models")
    with pytest.raises(RepositoryError, match="absolute path"):
        Repository("file://host/models")
    with pytest.raises(RepositoryError, match="but not published"):
        Repository("http://127.0.0.1:9/models", cache=tmp_path).publish(make_draft())
    with pytest.raises(RepositoryError, match="bucket does not exist"):
        Repository("s3://no-such-bucket/models", cache=tmp_path).publish(make_draft())
    # What argparse's Path makes of a URL is understood.
    assert Repository(Path(s3_url)).root == s3_url


def test_a_server_that_is_gone_is_named(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(RepositoryError, match="cannot list s3://"):
        Repository(s3_url, cache=tmp_path).names()


def test_secrets_stay_out_of_logs_and_messages(
    s3: Open, make_draft: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.DEBUG):
        s3().publish(make_draft())
        s3("fresh").open("encoder")
        with pytest.raises(NotFoundError) as caught:
            s3().open("other")
    assert caplog.records
    assert "not-for-any-log" not in caplog.text + str(caught.value)


def test_the_commands_take_urls(
    s3: Open,
    s3_url: str,
    make_draft: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    s3().publish(make_draft())
    s3().publish(make_draft(payload=b"two"))
    assert main(["ls", s3_url]) == 0
    assert main(["verify", s3_url, "--full"]) == 0
    assert main(["rollback", s3_url, "encoder"]) == 0
    assert main(["inspect", f"{s3_url}/encoder/2"]) == 0
    out = capsys.readouterr().out
    assert "encoder 1\nencoder 2 latest\nencoder 1: verified\nencoder 2: verified" in out
    assert "encoder: 1 serves" in out
    assert "encoder 2 (text_encoder, fp32)" in out
