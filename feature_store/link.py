"""One connection to a server, over a socket that blocks.

In: an address, bytes to send. Out: replies, as their readers understand them. Lookups go through
the compiled `talk`, which sends, waits and decodes without Python in between; everything else, and
whatever is out of the ordinary, through Python's sockets.
"""

import os
import select
import socket
import ssl
import time

from . import compiled
from .address import Address
from .compiled import CLOSED, FAILED, LATE, SURPLUS, UNUSUAL
from .decoding import CompiledReader, blank_state, outcome_of
from .errors import AccessError, FeatureStoreError, ProtocolError, UnavailableError
from .ops import Call, Node
from .wire import SLACK, Reader, RepliesReader

_CLOSED = "the server closed the connection"
UNASKED = "the server sent bytes that nobody had asked for, or closed the connection"


def readable(descriptor: int) -> select.poll:
    """What tells, by `poll(0)`, whether a socket has bytes to read, or has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll


def grown(buffer: bytearray, end: int) -> bytearray:
    """A receive buffer with room: the same one, or one of twice the size."""
    if len(buffer) - SLACK > end:
        return buffer
    larger = bytearray(2 * len(buffer))
    larger[:end] = memoryview(buffer)[:end]
    return larger


class Link:
    """One connection."""

    __slots__ = (
        *("buffer", "descriptor", "end", "node", "plain", "readable", "sock", "state", "used"),
    )

    def __init__(self, node: Node, sock: socket.socket) -> None:
        self.node = node
        self.sock = sock
        self.buffer = bytearray(1 << 16)
        self.end = 0
        self.state = blank_state()  # of what `ask` in _talk.c began
        self.used = False
        self.plain = not isinstance(sock, ssl.SSLSocket)
        self.descriptor = sock.fileno()
        self.readable = readable(self.descriptor)

    def ask(self, call: Call, deadline: float) -> None:
        """Send a call and read its reply. Raises OSError, TimeoutError, ProtocolError."""
        fast, reader = compiled.fast, call.reader
        if fast is None or not self.plain or not isinstance(reader, CompiledReader):
            self.send(call.payload, deadline)
            self.read(reader, deadline)
            return
        if fast.talk([self.job(call.payload, reader)], deadline):
            self.conclude(reader, reader.state, deadline)

    def job(self, payload: bytes, reader: CompiledReader) -> tuple[object, ...]:
        """What `talk` needs to send a payload and decode the reply."""
        self.make_room(reader.room)
        return reader.job(self.descriptor, payload, self.buffer)

    def make_room(self, size: int) -> None:
        """Begin anew with a buffer of at least this size."""
        self.end = 0
        if len(self.buffer) < size:
            self.buffer = bytearray(2 * size)

    def conclude(self, reader: CompiledReader, state: bytearray, deadline: float) -> None:
        """Raise what stopped a `talk` or `ask`, or read on, where a reply is out of the ordinary.

        state: what the compiled part left.
        """
        result, self.end, error = outcome_of(state)
        if result == UNUSUAL:
            if not reader.scan(self.buffer, self.end):
                self.sock.settimeout(max(deadline - time.monotonic(), 1e-4))
                self.read(reader, deadline)
        elif result == LATE:
            raise TimeoutError
        elif result == CLOSED:
            raise ConnectionResetError(_CLOSED)
        elif result == FAILED:
            raise OSError(error, os.strerror(error))
        elif result == SURPLUS:
            self.sock.settimeout(0)
            raise ProtocolError(f"the server sent {self.sock.recv(80)!r} before it was asked")

    def send(self, payload: bytes, deadline: float) -> None:
        self.end = 0
        if self.used and self._spoilt():
            raise ConnectionResetError(UNASKED)
        # The socket never blocks by itself, so most commands leave in one system call.
        sent = self._send_now(payload)
        self.sock.settimeout(max(deadline - time.monotonic(), 1e-4))
        if sent < len(payload):
            self.sock.sendall(memoryview(payload)[sent:])

    def _spoilt(self) -> bool:
        """Whether something came while nothing was asked: it would pass for the next reply."""
        held = self.sock.pending() if isinstance(self.sock, ssl.SSLSocket) else 0
        return held > 0 or bool(self.readable.poll(0))

    def _send_now(self, payload: bytes) -> int:
        if not self.plain:
            return 0
        try:
            self.sock.settimeout(0)
            return self.sock.send(payload)
        except BlockingIOError:
            return 0

    def receive(self) -> None:
        self.buffer = grown(self.buffer, self.end)
        room = len(self.buffer) - SLACK - self.end
        count = self.sock.recv_into(memoryview(self.buffer)[self.end :], room)
        if not count:
            raise ConnectionResetError(_CLOSED)
        self.end += count

    def read(self, reader: Reader, deadline: float) -> None:
        while True:
            self.receive()
            if reader.scan(self.buffer, self.end):
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)

    def close(self) -> None:
        self.sock.close()


def open_link(address: Address, node: Node, deadline: float) -> Link:
    """Connect, secure and log in. Raises UnavailableError or AccessError."""
    left = max(deadline - time.monotonic(), 1e-4)
    try:
        if node.port:
            sock = socket.create_connection((node.host, node.port), left)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            sock = _connect_unix(node.host, left)
    except OSError as error:
        raise failure(node, error) from error
    try:
        if address.tls is not None:
            sock = address.tls.wrap_socket(sock, server_hostname=node.host)
        link = Link(node, sock)
        payload, count = address.handshake(node)
        if count:
            reader = RepliesReader(count)
            link.send(payload, deadline)
            link.read(reader, deadline)
            address.admitted(reader.replies, node)
    except (OSError, ProtocolError) as error:
        sock.close()
        raise failure(node, error) from error
    except FeatureStoreError:
        sock.close()
        raise
    return link


def _connect_unix(path: str, seconds: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(seconds)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def failure(node: Node, error: Exception) -> FeatureStoreError:
    """The typed error for what a socket raised."""
    if isinstance(error, FeatureStoreError):
        return error
    if isinstance(error, ssl.SSLError):
        return AccessError(
            f"TLS with {node} failed: {error}. Check rediss:// and its ssl_ca_certs, "
            "ssl_certfile and ssl_keyfile."
        )
    if isinstance(error, TimeoutError):
        return UnavailableError(
            f"{node} did not answer before the deadline. Check its load, the network, and that it "
            "speaks what the URL says: TLS for rediss://, none for redis://."
        )
    return UnavailableError(
        f"no answer from {node}: {error}. Check that the server runs and that the URL names it "
        "(rediss:// where it speaks TLS, redis:// where it does not)."
    )
