"""A TCP proxy between a store and its server that can fall silent, or answer anything."""

import selectors
import socket
import threading
from types import TracebackType


class Proxy:
    """Carries bytes to a port of loopback.

    While `silent`, it swallows what comes. While there are `pieces`, it answers with them, one
    after another, and hangs up if `short`.
    """

    def __init__(self, port: int) -> None:
        self.silent = False
        self.pieces: list[bytes] | None = None
        self.short = False
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._peers: dict[socket.socket, socket.socket] = {}
        self._swallowed: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        for sock in [self._listener, *self._peers]:
            sock.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._accept()
                elif sock in self._peers:
                    self._carry(sock)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _carry(self, sock: socket.socket) -> None:
        other = self._peers[sock]
        try:
            data = sock.recv(1 << 16)
            if self.silent or sock in self._swallowed:
                # A connection that lost bytes is never whole again.
                self._swallowed |= {sock, other}
                if data:
                    return
            elif data and self.pieces is not None:
                for piece in self.pieces:
                    sock.sendall(piece)
                if not self.short:
                    return
            elif data:
                other.sendall(data)
                return
        except OSError:
            data = b""
        for one in (sock, other):
            self._selector.unregister(one)
            del self._peers[one]
            one.close()
