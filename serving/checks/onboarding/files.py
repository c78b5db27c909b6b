"""A policy as the command finds it, and as it leaves it.

In: a policy's id, the folder of its file, the running service. Out: what both say of it now, and a
file that is replaced in one step.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.checks.onboarding.service import Service
from serving.checks.policy_file import PolicyFile, dump, parse
from serving.errors import ConfigurationError, MainJobError


@dataclass(frozen=True, slots=True)
class Standing:
    """file: as it is now, None: there is none. asked: the policy to ask, None: the default.

    now: what the service says of the policy that is asked.
    """

    path: Path
    file: PolicyFile | None
    asked: str | None
    now: Mapping[str, Any]

    def write(self, file: PolicyFile) -> PolicyFile:
        """Write `file`, one version higher than what was there. Raises ConfigurationError."""
        if self.file is not None:
            file = file.model_copy(update={"version": self.file.version + 1})
        write(self.path, file)
        return file


def standing(service: Service, name: str, folder: Path) -> Standing:
    """Raises MainJobError, ConfigurationError."""
    path = folder / f"{name}.yaml"
    file = parse(path.read_bytes(), path.name) if path.is_file() else None
    held = service.policies()
    if file is not None and name not in held:
        raise MainJobError(
            f"{path} is there, but the service has no policy {name!r}: does it read another folder "
            "(TESSERA_POLICIES), or can it not use the file (GET /v1/checks/policies)?"
        )
    asked = name if name in held else None
    return Standing(path, file, asked, held[asked or "default"])


def write(path: Path, file: PolicyFile) -> None:
    """Replace a policy's file in one step. Raises ConfigurationError."""
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as out:
            out.write(dump(file))
            out.flush()
            os.fsync(out.fileno())
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
