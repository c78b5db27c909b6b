"""YAML files read strictly: no duplicate keys, no aliases, and errors that name the line.

In: the bytes of a file, a pydantic model. Out: the model, or a ConfigurationError that says where
(line, field), what was found and what is expected. Only plain data is read (YAML 1.1, safe tags).
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from serving.errors import ConfigurationError

LIMIT_BYTES = 1 << 20
_Model = TypeVar("_Model", bound=BaseModel)


def read(data: bytes, model: type[_Model], where: str) -> _Model:
    """`data` as a `model`; `where` names the file in errors. Raises ConfigurationError."""
    if len(data) > LIMIT_BYTES:
        raise ConfigurationError(f"{where}: expected at most {LIMIT_BYTES:,} bytes")
    try:
        _refuse_aliases(data, where)
        root = yaml.compose(data, yaml.SafeLoader)
        for key in _twice(root):
            line = key.start_mark.line + 1
            raise ConfigurationError(f"{where}:{line}: {key.value!r} is there twice; keep one")
        value = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        reason = getattr(error, "problem", None) or error
        raise ConfigurationError(f"{where}{line}: not YAML: {reason}") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(
                f"{where}:{_line(root, e['loc'])}: {'.'.join(map(str, e['loc'])) or 'file'}: "
                f"{e['msg']}, found {e['input']!r:.60}"
                for e in error.errors()[:10]
            )
        ) from error


def _refuse_aliases(data: bytes, where: str) -> None:
    """An alias lets a few bytes stand for a great many."""
    for token in yaml.scan(data, yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken):
            line = token.start_mark.line + 1
            raise ConfigurationError(f"{where}:{line}: aliases (*{token.value}) are not read")


def _twice(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key
            seen.add(key.value)
            yield from _twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _twice(value)


def _line(node: Any, path: Sequence[str | int]) -> int:
    """The line, from 1, of the deepest node on a path that is there."""
    line: int = 1 if node is None else node.start_mark.line + 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            if step >= len(node.value):
                break
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
