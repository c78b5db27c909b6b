"""The command line: what it prints, its exit codes, and that it starts without torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export import Repository
from export.__main__ import main


@pytest.fixture
def repository(tmp_path: Path, make_draft: Any) -> Repository:
    repository = Repository(tmp_path / "repository")
    for payload in (b"one", b"two"):
        repository.publish(make_draft(payload=payload))
    return repository


def test_ls_pin_rollback(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(repository.root)
    assert main(["ls", root]) == 0
    assert capsys.readouterr().out == "encoder 1\nencoder 2 latest\n"
    assert main(["rollback", root, "encoder"]) == 0
    assert main(["ls", root]) == 0
    assert "encoder 1 pinned\nencoder 2\n" in capsys.readouterr().out
    assert main(["pin", root, "encoder", "latest"]) == 0
    assert capsys.readouterr().out == "encoder: 2 serves\n"
    assert main(["pin", root, "encoder", "3"]) == 2
    assert "no version 3" in capsys.readouterr().err


def test_inspect_prints_tensors_and_hashes(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = repository.open("encoder")
    assert main(["inspect", str(bundle.directory)]) == 0
    shown = capsys.readouterr().out
    assert "in   x: float32 (batch, 4)" in shown
    assert bundle.bundle_hash in shown
    assert main(["inspect", str(repository.root)]) == 2
    assert "no bundle" in capsys.readouterr().err


def test_verify_names_what_is_damaged(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(repository.root)
    assert main(["verify", root, "--full"]) == 0
    assert capsys.readouterr().out == "encoder 1: verified\nencoder 2: verified\n"
    (repository.root / "encoder" / "1" / "model.onnx").unlink()
    assert main(["verify", root]) == 1
    captured = capsys.readouterr()
    assert "encoder 1: " in captured.out
    assert "encoder 2: verified" in captured.out
    assert main(["verify", root, "encoder", "2"]) == 0
    assert main(["verify", root, "nothing"]) == 1


def test_wrong_input_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", str(tmp_path / "nowhere"), "encoder"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "file").touch()
    for root, said in (("file", "expected a folder"), ("n" * 300, "File name too long")):
        assert main(["shipped", "--dry-run", "--out", str(tmp_path / root)]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["shipped", "--out", str(tmp_path), "--only", "nothing"])
    assert caught.value.code == 2


def test_reading_and_help_need_no_heavy_import() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'transformers', 'numpy', 'scipy', 'rich'}"
    code = (
        "import sys; from export import Bundle, Repository; from export.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"found = {heavy} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
