"""The blocking driver of operations: a pool of connections per node, and exchanges over them.

In: operations (see ops.py). Out: their answers. A connection is used by one exchange at a time,
so threads never share one; a forked child opens its own.
"""

import select
import ssl
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from . import compiled, forks
from .address import Address
from .decoding import CompiledReader
from .errors import FeatureStoreError, ProtocolError
from .link import Link, failure, open_link
from .ops import Call, Exchange, Node, Op, Outcome, Pause

T = TypeVar("T")
_IDLE = 64  # idle connections kept per node


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that was sent over a connection, whose end is out of the ordinary."""

    link: Link
    payload: bytes
    at: float  # time.monotonic seconds

    def finish(self, call: Call, deadline: float) -> None:
        """As Link.ask, for the call that the request was."""
        link, reader = self.link, call.reader
        same = self.payload == call.payload and link.node == call.node
        if not same or not isinstance(reader, CompiledReader):
            link.end = 0
            raise ConnectionResetError("what is to be asked has changed meanwhile")
        link.conclude(reader, link.state, deadline)


class Links:
    """All connections of one store, and the driver that runs its operations."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.closed = False
        self._idle: defaultdict[Node, list[Link]] = defaultdict(list)
        forks.tell(self)

    def run(self, op: Op[T], begun: Begun | None = None) -> T:
        """Drive an operation to its end. What was begun is the one call of its first exchange."""
        try:
            step = next(op)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = op.send([])
                else:
                    first, begun = begun, None
                    step = op.send(self._exchange(step, first))
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        finally:
            op.close()
            if begun is not None:
                begun.link.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection: idle ones now, those that are in use when they are given back."""
        self.closed = True
        self.after_fork()

    def after_fork(self) -> None:
        """Close the idle connections; a child closes its copies, and the parent's go on."""
        for node in list(self._idle):
            self._drop_idle(node)

    def idle(self, node: Node) -> list[Link]:
        """Open connections to a node, always the same list: take one, and `give` it back."""
        return self._idle[node]

    def _exchange(self, exchange: Exchange, begun: Begun | None) -> list[Outcome]:
        if len(exchange.calls) == 1:
            return [self._one(exchange.calls[0], exchange.deadline, begun)]
        if begun is not None:
            begun.link.close()
        return self._many(exchange.calls, exchange.deadline)

    def _take(self, node: Node, deadline: float) -> Link:
        try:
            return self._idle[node].pop()
        except IndexError:
            return open_link(self.address, node, deadline)

    def give(self, link: Link) -> None:
        """Take a connection back whose reply has been read."""
        link.used = True
        idle = self._idle[link.node]
        if len(idle) < _IDLE and not self.closed:
            idle.append(link)
        else:
            link.close()

    def _one(self, call: Call, deadline: float, begun: Begun | None = None) -> Outcome:
        while True:
            try:
                link = self._take(call.node, deadline) if begun is None else begun.link
            except FeatureStoreError as error:
                return error
            try:
                if begun is None:
                    link.ask(call, deadline)
                else:
                    begun.finish(call, deadline)
            except (OSError, ProtocolError) as error:
                begun = None
                link.close()
                # An idle connection may have died unnoticed; what we send is safe to repeat.
                if link.used and not link.end and not isinstance(error, TimeoutError):
                    self._drop_idle(call.node)
                    continue
                return failure(call.node, error)
            except BaseException:
                link.close()  # an interrupt leaves an answer on its way
                raise
            self.give(link)
            return None

    def _drop_idle(self, node: Node) -> None:
        idle = self._idle[node]
        while idle:
            with suppress(IndexError):  # others take them meanwhile
                idle.pop().close()

    def _many(self, calls: list[Call], deadline: float) -> list[Outcome]:
        together = self._together(calls, deadline)
        if together is not None:
            return together
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

    def _together(self, calls: list[Call], deadline: float) -> list[Outcome] | None:
        """Lookups over connections that are open, in one go; None where it is not that simple."""
        fast = compiled.fast
        readers = [call.reader for call in calls if isinstance(call.reader, CompiledReader)]
        if fast is None or self.address.tls is not None or len(readers) < len(calls):
            return None
        links: list[Link] = []
        for call in calls:
            try:
                links.append(self._idle[call.node].pop())
            except IndexError:
                for link in links:
                    self.give(link)
                return None
        try:
            jobs = [
                link.job(call.payload, reader)
                for link, call, reader in zip(links, calls, readers, strict=True)
            ]
            fast.talk(jobs, deadline)
        except BaseException:
            for link in links:
                link.close()  # an interrupt leaves answers on their way
            raise
        outcomes: list[Outcome] = [None] * len(calls)
        for i, (link, reader) in enumerate(zip(links, readers, strict=True)):
            try:
                link.conclude(reader, reader.state, deadline)
                self.give(link)
            except (OSError, ProtocolError) as error:
                link.close()
                outcomes[i] = self._again(calls[i], link, error, deadline)
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
        self.give(link)
        return True, None

    def _again(self, call: Call, link: Link, error: Exception, deadline: float) -> Outcome:
        if link.used and not link.end and not isinstance(error, TimeoutError):
            self._drop_idle(call.node)
            return self._one(call, deadline)
        return failure(call.node, error)
