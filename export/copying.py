"""Copies of files that may be large: models have gigabytes.

In: a file and a place where none is. Out: the same bytes there, with a bar for whoever looks.
"""

from pathlib import Path

from export.progress import counted

_BLOCK_BYTES = 1 << 20


def copy_file(source: Path, target: Path) -> None:
    """Copy into a new file, making its folder. Raises FileExistsError where there is one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    size = source.stat().st_size
    with (
        source.open("rb") as read,
        target.open("xb") as written,
        counted(f"copying {source.name}", size) as advance,
    ):
        while block := read.read(_BLOCK_BYTES):
            written.write(block)
            advance(len(block))
