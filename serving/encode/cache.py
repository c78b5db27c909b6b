"""Vectors of content that was encoded before: a cache by content hash, with single flight.

In: the rows of a tower's inputs. Out: the rows of its outputs; only content that is neither known
nor being computed goes to the model. A cache belongs to the versions of one encoder and is
dropped with it, so no row of another version can come out.
"""

import asyncio
import contextvars
import hashlib
from collections import OrderedDict
from collections.abc import Collection, Sequence

import numpy as np

from serving.deadline import Deadline
from serving.encode.pipeline import Infer
from serving.errors import DeadlineExceededError, OverloadedError, UnavailableError
from serving.tensors import Tensors

CACHE_BYTES = 64 << 20
# What Python keeps beside a row's numbers: the key, the dictionary and the array's header.
ENTRY_BYTES = 400


class CachedInfer:
    """An `Infer` that asks another one for new content only.

    models: names whose rows are cached. capacity_bytes: least recently used rows go beyond it.
    """

    def __init__(
        self, infer: Infer, models: Collection[str], capacity_bytes: int = CACHE_BYTES
    ) -> None:
        self._infer = infer
        self._models = models
        self._capacity = capacity_bytes
        self._rows: OrderedDict[bytes, Tensors] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[Tensors]] = {}
        self._filling: set[asyncio.Task[None]] = set()
        self.bytes = 0

    async def __call__(
        self, name: str, tensors: Tensors, deadline: Deadline | None = None
    ) -> Tensors:
        if name not in self._models:
            return await self._infer(name, tensors, deadline)
        keys = _keys(name, tensors)
        while True:
            shared = any(key in self._flights for key in keys)
            try:
                return await self._rows_of(name, keys, tensors, deadline)
            except (DeadlineExceededError, OverloadedError):
                # Somebody else's deadline may have ended what was shared, not this caller's.
                if not shared or (deadline is not None and deadline.expired):
                    raise

    async def _rows_of(
        self, name: str, keys: Sequence[bytes], tensors: Tensors, deadline: Deadline | None
    ) -> Tensors:
        new = {key: row for row, key in enumerate(keys) if not self._known(key)}
        if new:
            loop = asyncio.get_running_loop()
            for key in new:
                self._flights[key] = loop.create_future()
            # In a context of its own: Serve cancels the calls of a request that goes away.
            task = asyncio.create_task(
                self._fill(name, tensors, new, deadline), context=contextvars.Context()
            )
            self._filling.add(task)  # it goes on for the others if this caller leaves
            task.add_done_callback(self._filling.discard)
        waiting = {key: self._flights[key] for key in set(keys) if key in self._flights}
        found = {key: self._rows[key] for key in set(keys) if key in self._rows}
        if waiting:
            try:
                # Its own: who began the flight may have all the time in the world.
                async with asyncio.timeout(None if deadline is None else deadline.remaining_s):
                    landed = await asyncio.gather(*(asyncio.shield(f) for f in waiting.values()))
            except TimeoutError as error:
                raise DeadlineExceededError("the deadline passed before the model") from error
            found.update(zip(waiting, landed, strict=True))
        for key in found:
            if key in self._rows:
                self._rows.move_to_end(key)
        outputs = found[keys[0]]
        return {output: np.stack([found[key][output] for key in keys]) for output in outputs}

    def _known(self, key: bytes) -> bool:
        return key in self._rows or key in self._flights

    async def _fill(
        self, name: str, tensors: Tensors, new: dict[bytes, int], deadline: Deadline | None
    ) -> None:
        """Compute the new rows and land their flights, with a result or an error."""
        picked = list(new.values())
        task = asyncio.ensure_future(
            self._infer(name, {key: array[picked] for key, array in tensors.items()}, deadline)
        )
        await asyncio.wait([task])
        cancelled = UnavailableError("the model's call was cancelled; ask again")
        error = cancelled if task.cancelled() else task.exception()
        for place, key in enumerate(new):
            flight = self._flights.pop(key)
            if error is None:
                row = {output: array[place].copy() for output, array in task.result().items()}
                self._keep(key, row)
                flight.set_result(row)
            else:
                flight.set_exception(error)
                flight.exception()  # nobody may be waiting any more

    def _keep(self, key: bytes, row: Tensors) -> None:
        self._rows[key] = row
        self.bytes += _size(row)
        while self.bytes > self._capacity and self._rows:
            _, dropped = self._rows.popitem(last=False)
            self.bytes -= _size(dropped)


def _keys(name: str, tensors: Tensors) -> list[bytes]:
    """One digest a row, of the model's name and everything in the row."""
    arrays = [np.ascontiguousarray(tensors[key]) for key in sorted(tensors)]
    keys = []
    for row in range(len(arrays[0])):
        digest = hashlib.blake2b(name.encode(), digest_size=16)
        for array in arrays:
            digest.update(array[row].data)
        keys.append(digest.digest())
    return keys


def _size(row: Tensors) -> int:
    return ENTRY_BYTES + sum(array.nbytes for array in row.values())
