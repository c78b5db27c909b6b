"""What every replica opens once and shares between its HTTP and gRPC sides.

In: the application's `AppArgs`. Out: settings, keys, metrics and a logger of that application.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.auth import Authenticator, Key
from serving.config import AppArgs, Settings
from serving.logs import configure
from serving.metrics import MemoryMetrics, Metrics, RayMetrics


@dataclass(frozen=True, slots=True)
class Replica:
    """The shared parts of one replica of `application`, served at `prefix`."""

    application: str
    prefix: str
    settings: Settings
    authenticator: Authenticator
    metrics: Metrics
    logger: logging.Logger

    @classmethod
    def open(cls, args: AppArgs, metrics: Metrics | None = None) -> "Replica":
        """Open inside a Serve replica (metrics None: Ray's), or anywhere with MemoryMetrics.

        Raises ConfigurationError for settings or a key file that cannot be used.
        """
        settings = args.load_settings()
        extra = [
            Key(key.name, bytes.fromhex(key.key_sha256), frozenset(key.scopes))
            for key in settings.extra_keys
        ]
        return cls(
            application=args.application,
            prefix=args.route_prefix,
            settings=settings,
            authenticator=Authenticator(settings.api_keys_file, extra),
            metrics=RayMetrics() if metrics is None else metrics,
            logger=configure(args.application, settings.log_level),
        )

    @classmethod
    def local(cls, application: str, prefix: str, keys: Path | None = None) -> "Replica":
        """A replica outside Ray, with metrics in memory; for tools and tests."""
        overrides = {"api_keys_file": str(keys)} if keys else {}
        args = AppArgs(application=application, route_prefix=prefix, settings=dict(overrides))
        return cls.open(args, MemoryMetrics())


def bind(deployment: Any, args: dict[str, Any]) -> Any:
    """The Serve application of one deployment class, sized by `args` (AppArgs) where it says so.

    `args` travel as they are: the replica reads settings in its own environment, so that no
    secret is in what is deployed.
    """
    options = AppArgs.model_validate(args).deployments.get(deployment.name, {})
    return deployment.options(**options).bind(args)
