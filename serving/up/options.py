"""What `up` was asked to do, checked before anything is started.

In: the command line. Out: `Options`, or ConfigurationError (one line, exit code 2).
"""

import argparse
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from export.repository import Repository
from feature_store.address import parse
from feature_store.errors import AddressError
from feature_store.ports import reserve
from serving.auth import read_keys
from serving.config import Settings
from serving.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of `up`; `redis` None: an embedded server, `creatives` None: drawn ones.

    models: a folder, or a URL as a string.
    """

    redis: str | None
    creatives: Path | None
    models: Path | str
    host: str
    port: int
    grpc_port: int
    persist: bool
    once: bool
    json: Path | None
    keys: Path | None
    models_key: Path | None
    llm: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of `up`."""
    parser.add_argument("--redis", metavar="URL", help="a server that runs (default: embedded)")
    parser.add_argument(
        "--creatives", metavar="DIR", type=Path, help="<class>/<name>.jpg, or with an ads.jsonl"
    )
    parser.add_argument(
        "--models", metavar="DIR", help="bundles: a folder, or a URL (default: var/models)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="HTTP (%(default)s)")
    parser.add_argument("--grpc-port", type=int, default=9000, help="gRPC (%(default)s)")
    parser.add_argument(
        "--persist", action="store_true", help="keep the embedded store in var/store"
    )
    parser.add_argument(
        "--no-llm", action="store_true", help="start no language model: ads stay unjudged"
    )
    parser.add_argument("--once", action="store_true", help="end after the summary")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the numbers there; also the ready sign"
    )


def check(arguments: argparse.Namespace) -> Options:
    """The options of a parsed command line; ConfigurationError says what cannot be used."""
    settings = Settings.load()
    redis = arguments.redis or (
        settings.redis_url if "redis_url" in settings.model_fields_set else None
    )
    if redis and arguments.persist:
        raise ConfigurationError("--persist is of the embedded store; leave it out with --redis")
    if redis:
        check_redis(redis, "--redis" if arguments.redis else "TESSERA_REDIS_URL")
    creatives = arguments.creatives
    with reading("--creatives"):
        if creatives is not None and not creatives.is_dir():
            raise ConfigurationError(f"--creatives: no such folder: {creatives}")
    if arguments.json is not None:
        check_json(arguments.json)
    models = check_models(arguments.models or settings.models)
    models_key = settings.models_public_key
    with reading("TESSERA_MODELS_PUBLIC_KEY"):
        if models_key is not None and not models_key.is_file():
            raise ConfigurationError(f"TESSERA_MODELS_PUBLIC_KEY: no such file: {models_key}")
    if ":" in arguments.host:
        raise ConfigurationError(
            f"--host {arguments.host}: expected an IPv4 address or a name, since Serve's front "
            "reaches its replicas over IPv4 alone"
        )
    keys = settings.api_keys_file
    if keys is not None:
        read_keys(keys)
    elif not is_loopback(arguments.host):
        raise ConfigurationError(
            f"--host {arguments.host}: other than loopback needs TESSERA_API_KEYS_FILE"
        )
    if arguments.port == arguments.grpc_port:
        raise ConfigurationError(f"--port and --grpc-port are both {arguments.port}")
    for name, port in (("--port", arguments.port), ("--grpc-port", arguments.grpc_port)):
        check_port(name, arguments.host, port)
        reserve(port)
    return Options(
        redis=redis,
        creatives=creatives,
        models=models,
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        persist=arguments.persist,
        once=arguments.once,
        json=arguments.json.absolute() if arguments.json else None,
        keys=keys.absolute() if keys else None,
        models_key=models_key.absolute() if models_key else None,
        llm=not arguments.no_llm,
    )


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What the file system refuses, as what is wrong with the argument or variable `name`."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{name}: {error.strerror}: {error.filename}") from error


def check_json(path: Path) -> None:
    """ConfigurationError unless a file can be put there, or one that is there replaced."""
    with reading("--json"):
        if path.exists() and not path.is_file():  # what is put in place of /dev/null is a file
            kind = "folder" if path.is_dir() else "device or pipe"
            raise ConfigurationError(f"--json: expected a file, found a {kind}: {path}")
        if not path.absolute().parent.is_dir():
            raise ConfigurationError(f"--json: no such folder: {path.absolute().parent}")
        if not os.access(path.absolute().parent, os.W_OK):
            raise ConfigurationError(f"--json: no file can be written beside {path}")


def check_redis(url: str, name: str) -> None:
    """ConfigurationError for a URL that names no kind of server that is known."""
    try:
        parse(url)
    except AddressError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def check_models(given: str | Path) -> Path | str:
    """An absolute folder, or a URL. ConfigurationError where it can be neither."""
    try:
        root = Repository(given).root
    except ExportError as error:
        raise ConfigurationError(f"--models: {error}") from error
    return root if isinstance(root, str) else root.absolute()


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_port(name: str, host: str, port: int) -> None:
    """ConfigurationError unless something could listen there now."""
    if not 1 <= port <= 65535:
        raise ConfigurationError(f"{name}: expected 1-65535, found {port}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigurationError(f"{name} {port} on {host}: {why}; name another") from error
