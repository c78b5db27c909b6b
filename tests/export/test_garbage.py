"""`python -m export gc`: what a dead publisher left goes, what anybody may need stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from export import Repository
from export.__main__ import main
from export.errors import ManifestError, RepositoryError
from export.garbage import parse_age
from export.manifest import dump
from export.object_access import Objects
from export.staging import staging

DAY_S = 86_400.0
# Dies when all files are there and the manifest is not.
VICTIM = """
import os, signal, sys
from pathlib import Path
from export import Repository
from export.bundle import Bundle
from export.manifest import parse
from export.object_access import Objects

url, draft, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
bundle = Bundle.draft(draft, parse((draft.parent / "manifest.json").read_bytes()))
create = Objects.create

def killed(self, key, data):
    if key.endswith("manifest.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, key, data)

Objects.create = killed
Repository(url, cache=cache).publish(bundle)
"""


def _files(url: str) -> set[str]:
    protocol, _, prefix = url.partition("://")
    return set(Objects(protocol, prefix).children(".files"))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is two days later for whoever looks at ages."""
    real = time.time
    monkeypatch.setattr("export.garbage.time.time", lambda: real() + 2 * DAY_S)


def _killed_half_way(url: str, draft: Any, cache: Path) -> None:
    (draft.directory.parent / "manifest.json").write_bytes(dump(draft.manifest))
    command = [sys.executable, "-W", "ignore", "-c", VICTIM, url, str(draft.directory), str(cache)]
    assert subprocess.run(command, check=False, timeout=400).returncode == -signal.SIGKILL


def test_what_a_killed_publisher_left_is_removed_once_it_is_old(
    s3_url: str,
    make_draft: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository = Repository(s3_url, cache=tmp_path / "cache")
    kept = repository.publish(make_draft())
    draft = make_draft(payload=b"of the dead")
    _killed_half_way(s3_url, draft, tmp_path / "victim")
    left = draft.manifest.files["model.onnx"].sha256
    named = {entry.sha256 for entry in kept.manifest.files.values()}
    assert _files(s3_url) == named | {left}
    assert repository.versions("encoder") == ["1"]
    # A publisher may still be at work on what is young.
    assert main(["gc", s3_url]) == 0
    assert capsys.readouterr().out == "removed 0 that no version names, 0 bytes\n"
    request.getfixturevalue("later")
    assert main(["gc", s3_url, "--dry-run"]) == 0
    found = capsys.readouterr().out
    assert f"{left}: 11 bytes, 48." in found
    assert "dry run: would remove 1" in found
    assert _files(s3_url) == named | {left}
    assert main(["gc", s3_url, "--older-than", "1d"]) == 0
    assert "removed 1 that no version names, 11 bytes" in capsys.readouterr().out
    assert _files(s3_url) == named
    fresh = Repository(s3_url, cache=tmp_path / "fresh")
    assert fresh.open("encoder", full=True).manifest == kept.manifest
    # What was collected can be published after all.
    again = fresh.publish(draft)
    assert Repository(s3_url, cache=tmp_path / "other").open("encoder").manifest == again.manifest


def test_a_manifest_that_cannot_be_read_stops_everything(
    s3_url: str, make_draft: Any, tmp_path: Path, later: None
) -> None:
    repository = Repository(s3_url, cache=tmp_path / "cache")
    repository.publish(make_draft())
    protocol, _, prefix = s3_url.partition("://")
    objects = Objects(protocol, prefix)
    assert objects.create("other/1/manifest.json", b'{"format_version": 99}')
    assert objects.create(f".files/{'0' * 64}", b"named by the future, perhaps")
    with pytest.raises(ManifestError, match=r"other/1/manifest\.json.*update.*nothing removed"):
        repository.collect(DAY_S)
    assert len(_files(s3_url)) == 3


def test_a_publisher_sends_old_files_again_so_that_they_are_young(
    s3_url: str, make_draft: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = make_draft(payload=b"of the dead")
    _killed_half_way(s3_url, draft, tmp_path / "victim")
    sent: list[str] = []
    upload = Objects.upload

    def counted(self: Objects, source: Path, key: str) -> None:
        sent.append(key.rpartition("/")[2])
        upload(self, source, key)

    monkeypatch.setattr(Objects, "upload", counted)
    Repository(s3_url, cache=tmp_path / "one").publish(draft)
    assert sent == []  # minutes after the death they may be used
    monkeypatch.setattr("export.object_store.REUSED_S", 0.0)
    other = make_draft(name="other", payload=b"of the dead")
    Repository(s3_url, cache=tmp_path / "two").publish(other)
    assert set(sent) == {entry.sha256 for entry in other.manifest.files.values()}
    sent.clear()
    Repository(s3_url, cache=tmp_path / "three").publish(other)
    assert sent == []  # the newest version names them: nobody collects them


def test_a_publisher_at_work_loses_nothing(
    s3_url: str, make_draft: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: None
) -> None:
    """Whoever publishes between the listing and the removal is found out, not broken in silence."""
    draft = make_draft(payload=b"of the dead")
    _killed_half_way(s3_url, draft, tmp_path / "victim")
    repository = Repository(s3_url, cache=tmp_path / "cache")
    remove, done = Objects.remove, []

    def late(self: Objects, key: str) -> None:
        if not done:
            done.append(Repository(s3_url, cache=tmp_path / "late").publish(draft))
        remove(self, key)

    monkeypatch.setattr(Objects, "remove", late)
    with pytest.raises(RepositoryError, match="published just now names"):
        repository.collect(DAY_S)


def test_a_folder_loses_only_what_nobody_holds(
    tmp_path: Path, make_draft: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path / "repository")
    repository.publish(make_draft())
    folder = tmp_path / "repository" / "encoder"
    dead = folder / ".staging-dead"
    dead.mkdir()
    (dead / "model.onnx").write_bytes(b"half of it")
    with staging(folder) as held:  # sweeps the dead one, as every publisher does
        assert not dead.exists()
        dead.mkdir()
        (dead / "model.onnx").write_bytes(b"half of it")
        root = str(repository.root)
        assert main(["gc", root]) == 0
        assert dead.exists()
        old = time.time() - 2 * DAY_S
        for path in (dead / "model.onnx", dead, held):
            os.utime(path, (old, old))
        assert main(["gc", root, "--dry-run"]) == 0
        assert "encoder/.staging-dead: 10 bytes, 48." in capsys.readouterr().out
        assert dead.exists()
        assert main(["gc", root]) == 0
        assert not dead.exists()
        assert held.exists()
    assert repository.open("encoder").manifest.version == "1"


def test_ages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_age("24h") == DAY_S
    assert parse_age("7d") == 7 * DAY_S
    for wrong in ("24", "h", "-1h", "1.5d", "3w"):
        with pytest.raises(RepositoryError, match="such as 24h or 7d"):
            parse_age(wrong)
    assert main(["gc", str(tmp_path), "--older-than", "0h"]) == 2
    assert "an hour or more" in capsys.readouterr().err
