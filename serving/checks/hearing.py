"""Hears from the server which keys have changed: what a replica remembers is true, or is not used.

In: a store's address and prefixes of keys. Out: calls with the keys that have changed, and `since`:
everything that changed before that moment has been told. One RESP3 connection with CLIENT TRACKING
in broadcast mode; what was sent before an answered PING has arrived (decision 0085).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from feature_store.address import Address
from feature_store.channel import Channel
from feature_store.errors import FeatureStoreError, UnavailableError
from feature_store.link import Link, open_link
from feature_store.wire import Reply, ServerReplyError, command

PING_S = 0.1
FRESH_S = 0.3  # what is remembered is not used once the server has been silent for so long
LOST_S = 1.0  # a connection that has not answered for so long is opened anew
RETRY_S = 0.2
WARN_S = 10.0  # between two warnings

# Keys that have changed; None: any may have.
Changed = Callable[[Collection[bytes] | None], None]

logger = logging.getLogger("tessera.checks")


class Hearing:
    """One connection to a single server. Belongs to the event loop that runs it."""

    def __init__(self, address: Address, prefixes: Sequence[bytes]) -> None:
        self._address = address
        self._prefixes = prefixes
        self._told: list[Changed] = []
        self._since = 0.0
        self._warned = -WARN_S

    @property
    def fresh(self) -> bool:
        """Whether all has been told that changed longer than FRESH_S ago."""
        return time.monotonic() - self._since < FRESH_S

    def tell(self, changed: Changed) -> None:
        """Call `changed` whenever keys have changed, and when that cannot be known."""
        self._told.append(changed)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._hear()
            except (OSError, FeatureStoreError) as error:
                self._warn(error)
            finally:
                self._since = 0.0
                self._change(None)
            await asyncio.sleep(RETRY_S)

    async def _hear(self) -> None:
        """Raises what ends the connection."""
        loop = asyncio.get_running_loop()
        link = await self._open(loop)
        channel, failed = Channel(link), loop.create_future()

        def receive() -> None:
            try:
                for reply in channel.receive():
                    self._heed(reply)
            except (OSError, FeatureStoreError) as error:
                loop.remove_reader(link.descriptor)
                if not failed.done():
                    failed.set_exception(error)
                return
            if channel.proven:
                self._since = channel.heard

        try:
            channel.watch(command("HELLO", 3) + self._tracking())
            loop.add_reader(link.descriptor, receive)
            while not failed.done():
                await asyncio.wait({failed}, timeout=PING_S)
                if time.monotonic() - max(channel.heard, channel.opened) > LOST_S:
                    raise TimeoutError(f"the server was silent for {LOST_S:g} s")
                channel.ping()
            failed.result()
        finally:
            loop.remove_reader(link.descriptor)
            link.close()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Link:
        (node,) = self._address.seeds
        until = time.monotonic() + LOST_S
        opening = loop.run_in_executor(None, open_link, self._address, node, until)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:  # the thread goes on: what it opens is nobody's
            await asyncio.wait({opening})
            if opening.exception() is None:
                opening.result().close()
            raise

    def _tracking(self) -> bytes:
        pairs = [part for prefix in self._prefixes for part in (b"PREFIX", prefix)]
        return command("CLIENT", "TRACKING", "ON", "BCAST", *pairs)

    def _heed(self, reply: Reply) -> None:
        if isinstance(reply, ServerReplyError):
            raise UnavailableError(f"the server refuses to tell of changes: {reply}")
        if isinstance(reply, list) and len(reply) == 2 and reply[0] == b"invalidate":
            names = reply[1]
            self._change(
                {name for name in names if isinstance(name, bytes)}
                if isinstance(names, list)
                else None  # the whole database was emptied
            )

    def _change(self, names: Collection[bytes] | None) -> None:
        for changed in self._told:
            changed(names)

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if now > self._warned + WARN_S:
            self._warned = now
            logger.warning("every check reads its stored verdict from the store: %s", error)
