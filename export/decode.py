"""JSON to typed frozen records: unknown, missing and wrongly typed fields are refused.

In: what `json.loads` gives, and a dataclass. Out: an instance of it. Knows dataclasses, `str`,
`int`, `float`, `tuple[T, ...]`, `Mapping[str, T]`, unions and `object` (any JSON value).
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from export.errors import ManifestError

Record = TypeVar("Record")


def decode(kind: type[Record], value: object, where: str) -> Record:
    """Build a record of type `kind` from JSON.

    Raises:
        ManifestError: with the path of the field at fault, below `where`.
    """
    result: Record = _value(kind, value, where)
    return result


def _value(kind: Any, value: object, where: str) -> Any:
    if kind is object:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, where)
    if kind is float and type(value) is int:
        return float(value)
    # `type is`, since a bool is an int to isinstance.
    if isinstance(kind, type) and type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind))
    raise ManifestError(f"{where}: expected {name}, found {_shown(value)}")


def _union(choices: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and types.NoneType in choices:
        return None
    named = [choice for choice in choices if choice is not types.NoneType]
    if len(named) == 1:
        return _value(named[0], value, where)
    if type(value) in named:
        return value
    names = " or ".join(choice.__name__ for choice in named)
    raise ManifestError(f"{where}: expected {names}, found {_shown(value)}")


def _record(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: expected an object, found {_shown(value)}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(fields)):
        raise ManifestError(f"{where}: unknown field {unknown[0]!r}; known are {sorted(fields)}")
    required = {name for name, field in fields.items() if _is_required(field)}
    if missing := sorted(required - set(value)):
        raise ManifestError(f"{where}: field {missing[0]!r} is missing")
    return kind(**{key: _value(hints[key], item, f"{where}.{key}") for key, item in value.items()})


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
