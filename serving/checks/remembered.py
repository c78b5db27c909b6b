"""What a replica has read of stored verdicts and of people's words, so that it reads them once.

In: names of keys and what was read under them. Out: the same again, without a round trip, for as
long as the server is heard to say what changes (`hearing.py`); bounded, the oldest use goes first.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

MOST = 32_768  # names; about 20 MB of verdicts on ten categories


class Hears(Protocol):
    """See `Hearing`."""

    @property
    def fresh(self) -> bool: ...

    def tell(self, changed: Callable[[Collection[bytes] | None], None], /) -> None: ...


class Reading:
    """One round trip that has begun. gone: names that changed meanwhile; None: any may have."""

    __slots__ = ("gone",)

    def __init__(self) -> None:
        self.gone: set[bytes] | None = set()


class Remembered:
    """Values by name; None is remembered too: that nothing lies there. For one event loop."""

    def __init__(self, hearing: Hears, most: int = MOST) -> None:
        self._hearing = hearing
        self._values: OrderedDict[bytes, Any] = OrderedDict()
        self._readings: set[Reading] = set()
        self._most = most
        hearing.tell(self.changed)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, names: Sequence[bytes]) -> list[Any] | None:
        """What lies under each name, in order; None when that is not known of all of them."""
        if not self._hearing.fresh:
            return None
        values = self._values
        try:
            found = [values[name] for name in names]
        except KeyError:
            return None
        for name in names:
            values.move_to_end(name)
        return found

    def begin(self) -> Reading:
        """Before values are asked for: what changes from here on will not be kept."""
        reading = Reading()
        if not self._hearing.fresh:
            reading.gone = None
        self._readings.add(reading)
        return reading

    def end(self, reading: Reading, found: Iterable[tuple[bytes, Any]]) -> None:
        """Keep what was read, but for what has changed since. Call it in any case, once."""
        self._readings.discard(reading)
        if reading.gone is None:
            return
        for name, value in found:
            if name not in reading.gone:
                self._values[name] = value
                self._values.move_to_end(name)
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def changed(self, names: Collection[bytes] | None) -> None:
        """Forget these; None: everything."""
        if names is None:
            self._values.clear()
        else:
            for name in names:
                self._values.pop(name, None)
        for reading in self._readings:
            if names is None or reading.gone is None:
                reading.gone = None
            else:
                reading.gone.update(names)
