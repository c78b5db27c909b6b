"""Ports for servers that start a moment later: outside the range the kernel gives away itself.

A port that the kernel chose (bind to 0, close) may be given to the next outgoing connection before
the server that it was meant for listens there. Below that range nothing is given away unasked.
"""

import random
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

_GIVEN_AWAY = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Above the ports of Ray's workers (10002-19999), below those of ranges.
_FIRST, _END = 20_000, 30_000
_RANGES_END = 32_768
_ENOUGH = 1_000
_given: deque[int] = deque(maxlen=_ENOUGH)


def free_port() -> int:
    """A TCP port on which nothing listens, on any interface, at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports on which nothing listens. Raises OSError when all are in use.

    No port is given twice in a process: what it was given for may not listen there yet.
    """
    with ExitStack() as held:
        probes = (held.enter_context(socket.socket()) for _ in range(count))
        return [_bound(probe, _candidates()) for probe in probes]


def free_range(count: int) -> range | None:
    """`count` ports in a row on which nothing listens; None where there are none to promise.

    They lie above those of `free_ports`, so that neither takes from the other.
    """
    end = min(_RANGES_END, _first_given_away())
    starts = list(range(_END, end - count + 1, count))
    random.shuffle(starts)
    blocks = (range(start, start + count) for start in starts)
    return next((block for block in blocks if all(map(_is_free, block))), None)


def reserve(port: int) -> None:
    """Never give `port`: something of this process will listen there."""
    _given.append(port)


def _candidates() -> Iterator[int]:
    """Ports in random order: two processes that look at once seldom try the same one."""
    end = min(_END, _first_given_away())
    if end - _FIRST < _ENOUGH:
        return iter((0,))  # the kernel gives all of them away: let it choose
    ports = random.sample(range(_FIRST, end), end - _FIRST)
    return (port for port in ports if port not in _given)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _first_given_away() -> int:
    try:
        return int(_GIVEN_AWAY.read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux, or no /proc: IANA's dynamic ports
        return 49_152


def _bound(probe: socket.socket, candidates: Iterable[int]) -> int:
    for port in candidates:
        try:
            probe.bind(("", port))
        except OSError:
            continue
        chosen = int(probe.getsockname()[1])
        reserve(chosen)
        return chosen
    raise OSError(f"expected a free TCP port in {_FIRST}-{_END - 1}, found every one in use")
