"""The committed stubs are what the compiler makes of the committed proto."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STUBS = ("lookup_pb2.py", "lookup_pb2.pyi", "lookup_pb2_grpc.py")


def test_stubs_are_up_to_date(tmp_path: Path) -> None:
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I.",
        *out,
        "serving/lookup/lookup.proto",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in STUBS:
        made = (tmp_path / "serving" / "lookup" / name).read_text()
        assert made == (ROOT / "serving" / "lookup" / name).read_text(), (
            f"{name} is not what protoc makes: run `python -m grpc_tools.protoc -I. --python_out=. "
            "--pyi_out=. --grpc_python_out=. serving/lookup/lookup.proto`"
        )
