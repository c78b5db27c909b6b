"""A Serve instance with nothing but models, as a process of its own.

Arguments: the repository's folder, a file to write when ready, the model that `@serve.batch` serves
too (or ""), and the models' names. Out: the file, `{"http", "grpc"}`. It serves until its stdin
ends. Sizes of replicas are those of the development profile, as `python -m serving up` has them.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feature_store.ports import free_port

from ..serve_system import NotServingError
from .niceness import give_way

START_S = 300.0
STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Front:
    """Where it answers: http://host:port, and host:port."""

    http: str
    grpc: str


@contextmanager
def started(
    repository: Path, names: Sequence[str], peer: str = "", *, gives_way: bool = False
) -> Iterator[Front]:
    """Serve models of a repository. peer: the one that `@serve.batch` serves beside it, if any.

    gives_way: to this process, once it is up (see `niceness`).
    Raises NotServingError.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [
            sys.executable,
            "-m",
            "benchmarks.models.served",
            str(repository),
            str(ready),
            peer,
        ]
        process = subprocess.Popen(
            [*command, *names], stdin=subprocess.PIPE, stdout=sys.stderr, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NotServingError("the models' Serve instance did not start: see above")
                time.sleep(0.1)
            if gives_way:  # not before: on a busy machine Ray would not start in time
                give_way(process.pid)
            yield Front(**json.loads(ready.read_bytes()))
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(repository: Path, ready: Path, peer: str, names: Sequence[str]) -> None:
    """Serve until stdin ends."""
    from serving.config import apply_environment, topology
    from serving.up.cluster import running

    apply_environment({"TESSERA_MODELS": str(repository)})
    all_ = topology("development", models=names, port=free_port(), grpc_port=free_port())
    apps = tuple(a for a in all_.applications if a.import_path.startswith("serving.models."))
    layout = all_.model_copy(update={"applications": apps})
    with (
        tempfile.TemporaryDirectory(prefix="tessera-", ignore_cleanup_errors=True) as folder,
        running(layout, {"models": str(repository)}, Path(folder)) as cluster,
    ):
        if peer:
            from .serve_batch import deploy

            deploy(repository, peer)
        half = ready.with_suffix(".half")
        half.write_text(json.dumps({"http": cluster.http, "grpc": cluster.grpc}))
        half.rename(ready)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
