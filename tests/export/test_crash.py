"""Atomic publishing: the process is killed at each of its file operations, and while exporting."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from export import Repository

# Counts what the interpreter does to files below the repository, and dies at the n-th of it.
VICTIM = """
import os, signal, sys
from pathlib import Path
from export import Repository
from export.bundle import Bundle
from export.manifest import parse
from dataclasses import replace

root, draft, fatal = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
manifest = parse((draft.parent / "manifest.json").read_bytes())
bundle = Bundle.draft(draft, manifest)
count = 0

def watch(event, arguments):
    global count
    if event in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}:
        if str(root) in str(arguments[0]):
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
Repository(root).publish(bundle)
print(count)
"""


def _publish(root: Path, draft: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", VICTIM, str(root), str(draft), str(fatal)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_publisher_killed_anywhere_leaves_the_old_state_or_the_new(
    tmp_path: Path, make_draft: Any
) -> None:
    from export.manifest import dump

    root = tmp_path / "repository"
    repository = Repository(root)
    old = repository.publish(make_draft(payload=b"old"))
    draft = make_draft(payload=b"new")
    (draft.directory.parent / "manifest.json").write_bytes(dump(draft.manifest))
    operations = int(_publish(tmp_path / "elsewhere", draft.directory, 0).stdout)
    assert operations > 10
    before, seen = ["1"], set()
    for fatal in range(1, operations + 1):
        assert _publish(root, draft.directory, fatal).returncode == -signal.SIGKILL
        after = repository.versions("encoder")
        assert after[: len(before)] == before
        assert len(after) - len(before) in (0, 1)
        seen.add(len(after) - len(before))
        for version in after:
            payload = repository.open("encoder", version, full=True).path().read_bytes()
            assert payload == (b"old" if version == "1" else b"new")
        before = after
    assert seen == {0, 1}
    assert repository.open("encoder", "1") == old
    # The next one succeeds, gives a number that nobody had, and sweeps what the dead left.
    assert _publish(root, draft.directory, 0).returncode == 0
    assert repository.latest("encoder") == str(int(before[-1]) + 1)
    assert {path.name for path in (root / "encoder").glob(".*")} == {".lock"}


# Dies when the graph is written and about to be compared with its source.
EXPORTER = """
import os, signal, sys
from pathlib import Path
import torch
from export import Repository, parity
from export.manifest import Source, TensorSpec
from export.pipeline import publish
from export.sources.source import GraphSource, ModelSource

parity.measure = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
graph = GraphSource(
    torch.nn.Linear(4, 2).eval(),
    (TensorSpec("x", "float32", ("batch", 4)),),
    (TensorSpec("y", "float32", ("batch", 2)),),
    lambda sizes, generator: (torch.randn((sizes["batch"], 4), generator=generator),),
    {"batch": (1, 3)},
)
source = ModelSource("ranker", Source("test", "sha256:00"), {"model": graph})
publish(source, Repository(Path(sys.argv[1])), "ranker", lambda _: None)
"""


def test_a_killed_export_leaves_nothing_that_opens_and_is_swept(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", EXPORTER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "ranker"
    assert list(folder.glob(".staging-*/model.onnx"))
    repository = Repository(tmp_path)
    assert repository.names() == []
    with repository.staging("ranker") as scratch:
        assert list(folder.glob(".staging-*")) == [scratch]
