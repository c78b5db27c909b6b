"""Moves bytes with asyncio: the second driver of operations (see ops.py).

In: operations. Out: awaitable answers. At most `_LINKS` connections a node; whoever comes later
waits its turn, within its own deadline. Belongs to the event loop that runs it first.
"""

import asyncio
import select
import time
from collections import defaultdict
from typing import TypeVar, cast

from .address import Address
from .errors import FeatureStoreError, InputError, ProtocolError, UnavailableError
from .forks import generation
from .link import UNASKED, failure, grown, readable
from .ops import Call, Exchange, Node, Op, Outcome, Pause
from .wire import SLACK, Reader, RepliesReader

T = TypeVar("T")
_LINKS = 16


class _Link(asyncio.BufferedProtocol):
    """One connection: hands what arrives to the reader of the exchange that holds it."""

    def __init__(self) -> None:
        self.buffer = bytearray(1 << 16)
        self.end = 0
        self.used = False
        self.closed = False
        self.transport: asyncio.Transport | None = None
        self._readable: select.poll | None = None
        self._reader: Reader | None = None
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods but are not of asyncio's class.
        self.transport = cast(asyncio.Transport, transport)
        self._readable = readable(transport.get_extra_info("socket").fileno())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio passes it
        self.buffer = grown(self.buffer, self.end)
        return memoryview(self.buffer)[self.end : len(self.buffer) - SLACK]

    def buffer_updated(self, nbytes: int) -> None:
        self.end += nbytes
        if self._reader is None or self._done is None or self._done.done():
            self.close()  # bytes that nobody asked for
            return
        try:
            if self._reader.scan(self.buffer, self.end):
                self._done.set_result(None)
        except ProtocolError as error:
            self._done.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._done is not None and not self._done.done():
            self._done.set_exception(
                exc or ConnectionResetError("the server closed the connection")
            )

    async def ask(self, payload: bytes, reader: Reader, deadline: float) -> None:
        """Send and read. Raises OSError, TimeoutError, ProtocolError."""
        self.end = 0  # before anything fails: a dead idle connection is tried anew, once
        if self.closed or self.transport is None:
            raise ConnectionResetError("the connection is closed")
        # The loop has not read yet what came while nothing was asked: it would pass for the reply.
        if self.used and self._readable is not None and self._readable.poll(0):
            raise ConnectionResetError(UNASKED)
        self._reader = reader
        self._done = asyncio.get_running_loop().create_future()
        try:
            self.transport.write(payload)
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                await self._done
        finally:
            self._reader = self._done = None

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


class AsyncLinks:
    """All connections of one store, and the driver that runs its operations."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._generation = generation()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: defaultdict[Node, list[_Link]] = defaultdict(list)
        self._slots: defaultdict[Node, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_LINKS)
        )

    async def run(self, op: Op[T]) -> T:
        """Drive an operation to its end."""
        try:
            step = next(op)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = op.send([])
                else:
                    step = op.send(await self._exchange(step))
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        finally:
            op.close()

    def close(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, defaultdict(list)
        if self._loop is None or self._loop.is_closed():
            return  # there are none, or they went with their loop
        for link in [link for links in idle.values() for link in links]:
            if asyncio._get_running_loop() is self._loop:
                link.close()
            else:
                self._loop.call_soon_threadsafe(link.close)

    def _check_owner(self) -> None:
        if generation() != self._generation:
            raise UnavailableError(
                "an AsyncFeatureStore cannot be carried over a fork; connect in the child"
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InputError(
                "this AsyncFeatureStore belongs to the event loop that connected it; connect "
                "another one in this loop (FeatureStore may be shared between threads)"
            )

    async def _exchange(self, exchange: Exchange) -> list[Outcome]:
        self._check_owner()
        if len(exchange.calls) == 1:
            return [await self._one(exchange.calls[0], exchange.deadline)]
        calls = [self._one(call, exchange.deadline) for call in exchange.calls]
        return list(await asyncio.gather(*calls))

    async def _one(self, call: Call, deadline: float) -> Outcome:
        slot = self._slots[call.node]
        try:
            if slot.locked():
                async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                    await slot.acquire()
            else:
                await slot.acquire()
        except TimeoutError as error:
            return failure(call.node, error)
        try:
            return await self._talk(call, deadline)
        finally:
            slot.release()

    async def _talk(self, call: Call, deadline: float) -> Outcome:
        while True:
            idle = self._idle[call.node]
            try:
                link = idle.pop() if idle else await self._open(call.node, deadline)
            except FeatureStoreError as error:
                return error
            try:
                await link.ask(call.payload, call.reader, deadline)
            except (OSError, ProtocolError) as error:
                link.close()
                # An idle connection may have died unnoticed; what we send is safe to repeat.
                if link.used and not link.end and not isinstance(error, TimeoutError):
                    continue
                return failure(call.node, error)
            except BaseException:
                link.close()  # a cancelled caller leaves an answer on its way
                raise
            link.used = True
            if self._idle.get(call.node) is idle:
                idle.append(link)
            else:
                link.close()  # the store was closed meanwhile
            return None

    async def _open(self, node: Node, deadline: float) -> _Link:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                if node.port:
                    tls = self.address.tls
                    name = node.host if tls is not None else None
                    _, link = await loop.create_connection(
                        _Link, node.host, node.port, ssl=tls, server_hostname=name
                    )
                else:
                    _, link = await loop.create_unix_connection(_Link, node.host)
        except OSError as error:
            raise failure(node, error) from error
        payload, count = self.address.handshake(node)
        if count:
            reader = RepliesReader(count)
            try:
                await link.ask(payload, reader, deadline)
                self.address.admitted(reader.replies, node)
            except (OSError, ProtocolError) as error:
                link.close()
                raise failure(node, error) from error
            except BaseException:  # a refusal; a caller who was cancelled
                link.close()
                raise
        return link
