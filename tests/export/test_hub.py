"""Models from a hub: the real client, and a server on loopback that speaks the hub's protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers

from export.errors import SourceError
from export.revision import folder_revision
from export.sources.hub import fetch

COMMIT = "0123456789abcdef" * 2 + "01234567"
PREPROCESSING = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
OPEN = """
import sys
from export.sources.hub import open_from_hub
source = open_from_hub(sys.argv[1], "image_encoder").source
print(source.name, source.revision)
"""


@dataclass
class Hub:
    """A hub with one model, acme/tower, of the files of a folder. asked: paths, as they come."""

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "tower"
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    transformers.ViTModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit('code of a stranger')")
    found = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            found.asked.append(path)
            status, body = _reply(folder, path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def _reply(folder: Path, path: str) -> tuple[int, bytes]:
    names = sorted(file.name for file in folder.iterdir())
    if path in (
        "/api/models/acme/tower/revision/main",
        f"/api/models/acme/tower/revision/{COMMIT}",
    ):
        siblings = [{"rfilename": name} for name in names]
        return 200, json.dumps({"id": "acme/tower", "sha": COMMIT, "siblings": siblings}).encode()
    if path.startswith(f"/api/models/acme/tower/tree/{COMMIT}"):
        sizes = {name: (folder / name).stat().st_size for name in names}
        tree = [{"type": "file", "path": n, "size": s, "oid": "0"} for n, s in sizes.items()]
        return 200, json.dumps(tree).encode()
    name = path.removeprefix(f"/acme/tower/resolve/{COMMIT}/")
    return (200, (folder / name).read_bytes()) if name in names else (404, b"")


def opened(hub: Hub, home: Path, spec: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPEN, spec],
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_model_is_fetched_once_without_pickles_and_code(hub: Hub, tmp_path: Path) -> None:
    first = opened(hub, tmp_path / "home", "acme/tower")
    assert first.returncode == 0, first.stderr
    (hub.folder / "pytorch_model.bin").unlink()
    assert first.stdout.split() == ["acme/tower", folder_revision(hub.folder)]
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "preprocessor_config.json", "model.safetensors"}
    hub.url = "http://127.0.0.1:9"  # nobody listens there
    assert opened(hub, tmp_path / "home", "acme/tower").stdout == first.stdout


@pytest.mark.parametrize("spec", ["tower", "../acme/tower", "acme/tower/more", "a b/c", "/a/b"])
def test_what_is_no_hub_id_is_refused(spec: str) -> None:
    with pytest.raises(SourceError, match="expected a hub id"):
        fetch(spec)


def test_a_model_that_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    wrong = opened(hub, tmp_path / "home", "acme/towel")
    assert "SourceError: acme/towel cannot be fetched" in wrong.stderr
    assert "hf download acme/towel --local-dir FOLDER" in wrong.stderr
