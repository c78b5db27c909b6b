"""The command line of `python -m serving checks` says what is wrong before it asks the service."""

from pathlib import Path

import pytest

from serving.__main__ import main


@pytest.mark.parametrize("key", [b"k\xc3\xa9y\n", b"\xff\xfe", b"", b"one\ntwo\n", b"Bearer one\n"])
def test_a_file_that_holds_no_key_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: bytes
) -> None:
    examples, file = tmp_path / "examples.jsonl", tmp_path / "key"
    examples.write_text('{"title": "bingo", "labels": {"gambling": true}}\n' * 8)
    file.write_bytes(key)
    argv = ["--examples", str(examples), "--policies", str(tmp_path), "--key-file", str(file)]
    assert main(["checks", "onboard", "games", *argv]) == 2
    assert "expected one line, the key alone" in capsys.readouterr().err
