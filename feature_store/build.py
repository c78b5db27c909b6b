"""Builds the compiled inner loops beside their source: `python -m feature_store.build`.

In: _fast.c and a C compiler. Out: the extension module in this folder; exit code 1 without a
compiler, and the store then runs on numpy. Installing the package builds it by itself; this is for
a checkout.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SOURCE = Path(__file__).with_name("_fast.c")


def target() -> Path:
    """Where the extension module lies."""
    return SOURCE.with_name("_fast" + str(sysconfig.get_config_var("EXT_SUFFIX")))


def build() -> bool:
    """Compile if the source is newer than what is there; whether the module is there now."""
    out = target()
    if out.exists() and out.stat().st_mtime >= SOURCE.stat().st_mtime:
        return True
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return False
    include = sysconfig.get_paths()["include"]
    part = out.with_suffix(f".{os.getpid()}.part")
    command = [compiler, "-O3", "-Wall", "-shared", "-fPIC", f"-I{include}"]
    if sys.platform == "darwin":
        command += ["-undefined", "dynamic_lookup"]
    done = subprocess.run([*command, str(SOURCE), "-o", str(part)], capture_output=True, text=True)
    if done.returncode:
        print(f"the compiled loops could not be built: {done.stderr}", file=sys.stderr)
        return False
    part.replace(out)  # others may be importing it right now
    return True


if __name__ == "__main__":
    sys.exit(0 if build() else 1)
