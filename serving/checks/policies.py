"""The policies of one folder, read again whenever a file in it changes.

In: `<id>.yaml` files and the language model's bundle. Out: `Policy` records by name. A swap is one
assignment: a check goes on with the policy it began with. A file that is broken keeps the policy
that it held before, and `problems` says so.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from export import Bundle
from export.prompts import Renderer
from serving.checks.policy import DEFAULT, Policy
from serving.checks.policy_file import parse
from serving.checks.teaching import added_tokens, taught
from serving.errors import ConfigurationError, NotFoundError

SHIPPED = Path(__file__).parent / "policies"
POLL_S = 1.0
_Seen = tuple[int, int, int]  # of a file: modified (ns), inode, bytes

logger = logging.getLogger("tessera.checks")


@dataclass(frozen=True, slots=True)
class _Read:
    """One look at the folder. policies: by id. problems: by file."""

    seen: Mapping[str, _Seen]
    policies: Mapping[str, Policy]
    problems: Mapping[str, str]


class PolicyBook:
    """Policies by name. Raises ConfigurationError when the default one cannot be read."""

    def __init__(self, folder: Path, bundle: Bundle, renderer: Renderer) -> None:
        self._folder = folder
        self._bundle = bundle
        self._renderer = renderer
        self._special = added_tokens(bundle.file("tokenizer.json"))
        self._read = _Read({}, {}, {})
        self._read = self._look(_seen(folder))
        if (problem := self._read.problems.get(f"{DEFAULT}.yaml")) is not None:
            raise ConfigurationError(problem)

    @property
    def policies(self) -> Mapping[str, Policy]:
        """All of them, by id."""
        return self._read.policies

    @property
    def problems(self) -> Mapping[str, str]:
        """What is wrong with which file."""
        return self._read.problems

    def find(self, name: str | None) -> Policy:
        """A policy by its id or whole version; None: the default one. Raises NotFoundError."""
        read = self._read
        for policy in read.policies.values():
            if (name or DEFAULT) in (policy.name, policy.version):
                return policy
        reason = read.problems.get(f"{name}.yaml")
        raise NotFoundError(
            f"no policy {name!r}; expected one of {sorted(read.policies)}, or leave it out"
            + (f" (its file cannot be used: {reason})" if reason else "")
        )

    def reload(self) -> bool:
        """Look at the folder; whether anything has changed. Blocks; raises ConfigurationError."""
        seen = _seen(self._folder)
        if seen == self._read.seen:
            return False
        read = self._look(seen)
        for file, problem in read.problems.items():
            logger.error("policy file %s stays as it was: %s", file, problem)
        before = {policy.version for policy in self._read.policies.values()}
        for policy in read.policies.values():
            if policy.version not in before:
                logger.warning("policy %s holds from now on", policy.version)
        self._read = read
        return True

    async def watch(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await asyncio.to_thread(self.reload)
            except ConfigurationError as error:
                logger.error("policies stay as they were: %s", error)

    def _look(self, seen: Mapping[str, _Seen]) -> _Read:
        policies, problems = {}, {}
        for file in sorted(seen):
            name = file.removesuffix(".yaml")
            try:
                policies[name] = self._policy(file, name)
            except ConfigurationError as error:
                problems[file] = error.detail
                if name in self._read.policies:
                    policies[name] = self._read.policies[name]
        if DEFAULT not in policies:
            policies[DEFAULT] = Policy.of(self._bundle)
        return _Read(seen, policies, problems)

    def _policy(self, file: str, name: str) -> Policy:
        path = self._folder / file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
        found = parse(data, file)
        if found.id != name:
            raise ConfigurationError(f"{file}: id: expected {name!r} as the file, found {found.id}")
        return taught(Policy.of(self._bundle, found), self._special, self._renderer)


def _seen(folder: Path) -> dict[str, _Seen]:
    """Every policy's file as it lies there now. Raises ConfigurationError."""
    found: dict[str, _Seen] = {}
    try:
        for path in folder.iterdir():
            if path.suffix == ".yaml" and not path.name.startswith("."):
                stat = path.stat()
                found[path.name] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    except OSError as error:
        raise ConfigurationError(f"policies {folder}: {error.strerror}; is it a folder?") from error
    return found
