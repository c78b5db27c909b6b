"""Structured logs: one JSON object a line on stderr, with the request id it belongs to.

In: ordinary `logging` calls on loggers below `tessera`, with fields in `extra={"fields": ...}`.
Out: `{"ts", "level", "logger", "message", "application", "request_id", ...fields}`. Fields whose
name says that they hold a secret are replaced, and userinfo in URLs is cut out of every text.
"""

import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import orjson

ROOT = "tessera"
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_SECRET_NAME = re.compile(r"authorization|password|secret|token|api_?key|credential", re.I)
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")
_BEARER = re.compile(r"(?i)\bbearer\s+\S+")


def clean(text: str) -> str:
    """`text` without passwords in URLs and without bearer keys."""
    if "://" in text:  # most texts have neither, and expressions take longer than to see that
        text = _USERINFO.sub("***@", text)
    return _BEARER.sub("Bearer ***", text) if "bearer" in text.lower() else text


@lru_cache(1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _clean_field(name: str, value: Any) -> Any:
    if _is_secret(name):
        return "***"
    return clean(value) if isinstance(value, str) else value


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON line."""

    def __init__(self, application: str) -> None:
        super().__init__()
        self._application = application

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clean(record.getMessage()),
            "application": self._application,
        }
        current = request_id.get()
        if current is not None:
            line["request_id"] = current
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        line.update((name, _clean_field(name, value)) for name, value in fields.items())
        if record.exc_info:
            line["traceback"] = clean(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def configure(application: str, level: str = "INFO") -> logging.Logger:
    """The application's logger, writing JSON lines to stderr; calling it again changes nothing."""
    logger = logging.getLogger(f"{ROOT}.{application}")
    if not logger.handlers:
        # The real one: in replicas Serve puts a slow stand-in, with a format of its own, before it.
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(JsonFormatter(application))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(level)
    return logger
