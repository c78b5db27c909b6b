"""Publishing to an object store is atomic: the publisher is killed around each of its requests."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from export import Repository
from export.manifest import dump

# Imports once and forks for each try. The child dies before (odd) or after (even) its n-th request.
VICTIM = """
import os, signal, sys
from pathlib import Path
import s3fs, aiobotocore.session, aiobotocore.httpsession, botocore.httpsession
from export import Repository
from export.bundle import Bundle
from export.manifest import parse

url, draft, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
bundle = Bundle.draft(draft, parse((draft.parent / "manifest.json").read_bytes()))
call = s3fs.S3FileSystem._call_s3
count = 0

def attempt(fatal):
    def reached():
        global count
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    async def counted(self, *arguments, **keys):
        reached()
        try:
            return await call(self, *arguments, **keys)
        finally:
            reached()

    s3fs.S3FileSystem._call_s3 = counted
    Repository(url, cache=cache).publish(bundle)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        attempt(int(line))
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_publisher_killed_anywhere_leaves_the_old_state_or_the_new(
    tmp_path: Path, make_draft: Any, s3_url: str
) -> None:
    old = Repository(s3_url, cache=tmp_path / "old").publish(make_draft(payload=b"old"))
    draft = make_draft(payload=b"new")
    (draft.directory.parent / "manifest.json").write_bytes(dump(draft.manifest))
    victim = [sys.executable, "-W", "ignore", "-c", VICTIM, s3_url, str(draft.directory)]
    reader = Repository(s3_url, cache=tmp_path / "reader")
    before, seen, fatal = ["1"], [], 0
    with subprocess.Popen(
        [*victim, str(tmp_path / "victim")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            fatal += 1
            print(fatal, file=process.stdin, flush=True)
            status = int(process.stdout.readline())
            after = reader.versions("encoder")
            assert after[: len(before)] == before
            assert len(after) - len(before) in (0, 1)
            for version in after[len(before) - 1 :]:
                payload = reader.open("encoder", version).path().read_bytes()
                assert payload == (b"old" if version == "1" else b"new")
            if status == 0:
                break  # it lived to the end: there was no n-th request
            assert status == signal.SIGKILL
            seen.append(len(after) - len(before))
            before = after
        process.stdin.close()
    assert len(after) == len(before) + 1
    # Killed before its manifest is there: nothing; after it: a whole new version.
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}
    assert len(seen) > 15
    assert after == [str(number) for number in range(1, len(after) + 1)]
    assert reader.open("encoder", "1").manifest == old.manifest
    assert not list((tmp_path / "victim").glob(".staging-*"))
