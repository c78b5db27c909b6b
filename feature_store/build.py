"""Builds the compiled inner loops beside their source: `python -m feature_store.build`.

In: C sources and a compiler. Out: the extension module in this folder; exit code 1 without a
compiler, and the store then runs on numpy. Installing the package builds it by itself; this is for
a checkout.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = [FOLDER / name for name in ("_fast.c", "_near.c", "_rows.c", "_talk.c")]
_READ = [*SOURCES, FOLDER / "_fast.h"]


def target() -> Path:
    """Where the extension module lies."""
    return FOLDER / ("_fast" + str(sysconfig.get_config_var("EXT_SUFFIX")))


def build() -> bool:
    """Compile if the source is newer than what is there; whether the module is there now."""
    out = target()
    newest = max(path.stat().st_mtime for path in _READ)
    if out.exists() and out.stat().st_mtime >= newest:
        return True
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return False
    include = sysconfig.get_paths()["include"]
    part = out.with_suffix(f".{os.getpid()}.part")
    command = [compiler, "-O3", "-Wall", "-shared", "-fPIC", f"-I{include}"]
    if sys.platform == "darwin":
        command += ["-undefined", "dynamic_lookup"]
    command += [*map(str, SOURCES), "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"the compiled loops could not be built: {done.stderr}", file=sys.stderr)
        return False
    part.replace(out)  # others may be importing it right now
    return True


if __name__ == "__main__":
    sys.exit(0 if build() else 1)
