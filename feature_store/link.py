"""Moves bytes with blocking sockets: connections, their pools, and the driver of operations.

In: operations (see ops.py). Out: their answers. A connection is used by one exchange at a time,
so threads never share one; after a fork the child opens its own.
"""

import select
import socket
import ssl
import time
from collections import defaultdict
from typing import TypeVar

from .address import Address
from .errors import AccessError, FeatureStoreError, ProtocolError, UnavailableError
from .forks import generation
from .ops import Call, Exchange, Node, Op, Outcome, Pause, checked
from .wire import SLACK, Reader, RepliesReader

T = TypeVar("T")
_IDLE = 64  # idle connections kept per node


def grown(buffer: bytearray, end: int) -> bytearray:
    """A receive buffer with room: the same one, or one of twice the size."""
    if len(buffer) - SLACK > end:
        return buffer
    larger = bytearray(2 * len(buffer))
    larger[:end] = memoryview(buffer)[:end]
    return larger


class Link:
    """One connection."""

    __slots__ = ("buffer", "end", "node", "plain", "sock", "used")

    def __init__(self, node: Node, sock: socket.socket) -> None:
        self.node = node
        self.sock = sock
        self.buffer = bytearray(1 << 16)
        self.end = 0
        self.used = False
        self.plain = not isinstance(sock, ssl.SSLSocket)

    def send(self, payload: bytes, deadline: float) -> None:
        self.end = 0
        # The socket never blocks by itself, so most commands leave in one system call.
        sent = self._send_now(payload)
        self.sock.settimeout(max(deadline - time.monotonic(), 1e-4))
        if sent < len(payload):
            self.sock.sendall(memoryview(payload)[sent:])

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
            raise ConnectionResetError("the server closed the connection")
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
            checked(reader.replies, node)
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
        return UnavailableError(f"{node} did not answer before the deadline")
    return UnavailableError(
        f"no answer from {node}: {error}. Check that the server runs and that the URL names it."
    )


class Links:
    """All connections of one store, and the driver that runs its operations."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._generation = generation()
        self._idle: defaultdict[Node, list[Link]] = defaultdict(list)

    def run(self, op: Op[T]) -> T:
        """Drive an operation to its end."""
        try:
            step = next(op)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = op.send([])
                else:
                    step = op.send(self._exchange(step))
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        finally:
            op.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, defaultdict(list)
        for links in idle.values():
            for link in links:
                link.close()

    def _exchange(self, exchange: Exchange) -> list[Outcome]:
        if generation() != self._generation:
            self._generation = generation()
            self.close()  # closes this process's copies; the parent's go on
        if len(exchange.calls) == 1:
            return [self._one(exchange.calls[0], exchange.deadline)]
        return self._many(exchange.calls, exchange.deadline)

    def _take(self, node: Node, deadline: float) -> Link:
        idle = self._idle[node]
        try:
            return idle.pop()
        except IndexError:
            return open_link(self.address, node, deadline)

    def _give(self, link: Link) -> None:
        link.used = True
        idle = self._idle[link.node]
        if len(idle) < _IDLE:
            idle.append(link)
        else:
            link.close()

    def _one(self, call: Call, deadline: float) -> Outcome:
        while True:
            try:
                link = self._take(call.node, deadline)
            except FeatureStoreError as error:
                return error
            try:
                link.send(call.payload, deadline)
                link.read(call.reader, deadline)
            except (OSError, ProtocolError) as error:
                link.close()
                # An idle connection may have died unnoticed; what we send is safe to repeat.
                if link.used and not link.end and not isinstance(error, TimeoutError):
                    self._drop_idle(call.node)
                    continue
                return failure(call.node, error)
            except BaseException:
                link.close()  # an interrupt leaves an answer on its way
                raise
            self._give(link)
            return None

    def _drop_idle(self, node: Node) -> None:
        for link in self._idle.pop(node, []):
            link.close()

    def _many(self, calls: list[Call], deadline: float) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(calls)
        waiting: dict[int, tuple[int, Link]] = {}
        poll = select.poll()
        try:
            # Connections that are open go first: opening one may take all of the time.
            for i in sorted(range(len(calls)), key=lambda i: not self._idle[calls[i].node]):
                call = calls[i]
                try:
                    link = self._take(call.node, deadline)
                except FeatureStoreError as error:
                    outcomes[i] = error
                    continue
                try:
                    link.send(call.payload, deadline)
                except OSError as error:
                    link.close()
                    outcomes[i] = self._again(call, link, error, deadline)
                    continue
                link.sock.settimeout(0)
                waiting[link.sock.fileno()] = (i, link)
                poll.register(link.sock, select.POLLIN)
            while waiting:
                # Past the deadline, what has come already is still read.
                ready = poll.poll(max(deadline - time.monotonic(), 0) * 1000)
                if not ready:
                    break
                for descriptor, _ in ready:
                    i, link = waiting[descriptor]
                    done, outcomes[i] = self._advance(calls[i], link, deadline)
                    if done:
                        poll.unregister(descriptor)
                        del waiting[descriptor]
        finally:
            for i, link in waiting.values():
                link.close()
                outcomes[i] = failure(link.node, TimeoutError())
        return outcomes

    def _advance(self, call: Call, link: Link, deadline: float) -> tuple[bool, Outcome]:
        """Read what has come. (whether this call is finished, its outcome)"""
        try:
            link.receive()
            while not call.reader.scan(link.buffer, link.end):
                link.receive()  # TLS may hold bytes that poll does not see
        except (BlockingIOError, ssl.SSLWantReadError):
            return False, None
        except (OSError, ProtocolError) as error:
            again = self._again(call, link, error, deadline)
            link.close()
            return True, again
        self._give(link)
        return True, None

    def _again(self, call: Call, link: Link, error: Exception, deadline: float) -> Outcome:
        if link.used and not link.end and not isinstance(error, TimeoutError):
            self._drop_idle(call.node)
            return self._one(call, deadline)
        return failure(call.node, error)
