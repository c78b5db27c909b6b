"""Small bundles, made without torch, and an S3-compatible server to keep them in."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from export import Repository
from export.bundle import Bundle
from export.manifest import Graph, Manifest, Source, TensorSpec

MakeDraft = Callable[..., Bundle]
PublishAtOnce = Callable[[Callable[[int], Repository], list[Bundle]], list[Bundle]]


def pytest_configure(config: pytest.Config) -> None:
    """`pytest -m gpu` runs what needs an NVIDIA GPU and TensorRT; elsewhere it is skipped."""
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU and TensorRT 11")


@pytest.fixture
def make_draft(tmp_path: Path) -> MakeDraft:
    """Write a draft folder with two files, one in a sub-folder."""

    def make(name: str = "encoder", payload: bytes = b"weights") -> Bundle:
        folder = tmp_path / f"draft-{name}-{payload[:20].hex()}"
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(payload)
        (folder / "sub" / "tokenizer.json").write_bytes(b"{}")
        graph = Graph(
            "model.onnx",
            (TensorSpec("x", "float32", ("batch", 4)),),
            (TensorSpec("y", "float32", ("batch", 2)),),
        )
        manifest = Manifest(
            name=name,
            kind="text_encoder",
            precision="fp32",
            graphs={"model": graph},
            source=Source("test", "sha256:00"),
            metadata={"dimension": 2},
        )
        return Bundle.draft(folder, manifest)

    return make


@pytest.fixture
def publish_at_once() -> PublishAtOnce:
    """All drafts at the same moment, each by a publisher of its own."""
    return _publish_at_once


def _publish_at_once(open_one: Callable[[int], Repository], drafts: list[Bundle]) -> list[Bundle]:
    """What they won. open_one: the repository as the publisher of this number opens it."""
    barrier = threading.Barrier(len(drafts))

    def publish(number: int) -> Bundle:
        repository = open_one(number)
        barrier.wait(timeout=300)
        return repository.publish(drafts[number])

    with ThreadPoolExecutor(len(drafts)) as pool:
        won = list(pool.map(publish, range(len(drafts))))
    assert sorted(int(bundle.manifest.version) for bundle in won) == [
        number + 1 for number in range(len(drafts))
    ]
    return won


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Every bar that was shown, by its words: [done, total]; the last one of a name counts."""
    from rich.progress import Progress, TaskID

    found: dict[str, list[int]] = {}
    names: dict[tuple[int, TaskID], str] = {}
    add_task, advance = Progress.add_task, Progress.advance

    def added(self: Progress, description: str, total: int | None = None) -> TaskID:
        task = add_task(self, description, total=total)
        if total is not None:
            names[id(self), task], found[description] = description, [0, total]
        return task

    def advanced(self: Progress, task: TaskID, more: int) -> None:
        found[names[id(self), task]][0] += more
        advance(self, task, more)

    monkeypatch.setattr(Progress, "add_task", added)
    monkeypatch.setattr(Progress, "advance", advanced)
    return found


@pytest.fixture(scope="session")
def object_server() -> Iterator[str]:
    """The URL of an S3-compatible server (moto's) on loopback."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    patch = pytest.MonkeyPatch()
    # moto looks and then writes, in threads; S3 decides a conditional write in one step.
    put, one_at_a_time = S3Response.put_object, threading.Lock()

    def put_object(self: S3Response) -> object:
        with one_at_a_time:
            return put(self)

    patch.setattr(S3Response, "put_object", put_object)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        patch.undo()


@pytest.fixture
def s3_url(object_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository's URL in a bucket of its own; drivers find the server by the environment."""
    import botocore.session

    for name, value in {
        "AWS_ENDPOINT_URL": object_server,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "not-for-any-log",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"models-{uuid4().hex}"
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket=bucket)
    client.close()
    return f"s3://{bucket}/team/models"
