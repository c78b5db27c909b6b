"""Ports for servers that start later: free, different, and not the kernel's to give away."""

import socket
from collections import deque
from pathlib import Path

import pytest

from feature_store import ports


def test_every_port_is_another_one_and_can_be_bound_on_all_interfaces() -> None:
    found = ports.free_ports(50) + [ports.free_port() for _ in range(50)]
    assert len(set(found)) == len(found)
    for port in found[-5:]:
        with socket.socket() as listener:
            listener.bind(("", port))


def test_no_port_lies_where_the_kernel_gives_them_away() -> None:
    first, last = (
        int(bound) for bound in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    )
    if first < 21_000:
        pytest.skip("the kernel gives away every port of this machine")
    assert not [port for port in ports.free_ports(50) if first <= port <= last]


def test_a_port_in_use_or_reserved_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.free_port()
    monkeypatch.setattr(ports, "_given", deque[int]())
    monkeypatch.setattr(ports, "_FIRST", port)  # the only one there is
    monkeypatch.setattr(ports, "_END", port + 1)
    monkeypatch.setattr(ports, "_ENOUGH", 1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        with pytest.raises(OSError, match="every one in use"):
            ports.free_port()
    assert ports.free_port() == port
    ports._given.clear()
    ports.reserve(port)
    with pytest.raises(OSError, match="every one in use"):
        ports.free_port()


def test_where_the_kernel_gives_all_away_it_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given_away = tmp_path / "range"
    given_away.write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_GIVEN_AWAY", given_away)
    assert 1024 <= ports.free_port() <= 65535
    monkeypatch.setattr(ports, "_GIVEN_AWAY", tmp_path / "missing")
    assert 20_000 <= ports.free_port() < 30_000


def test_a_range_is_free_as_a_whole_or_not_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = ports.free_range(32)
    if found is None:
        pytest.skip("the kernel gives away every port of this machine")
    assert len(found) == 32
    monkeypatch.setattr(ports, "_END", found.start)  # the only one there is
    monkeypatch.setattr(ports, "_RANGES_END", found.stop)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", found[7]))
        assert ports.free_range(32) is None
    assert ports.free_range(32) == found
    given_away = tmp_path / "range"
    given_away.write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_GIVEN_AWAY", given_away)
    assert ports.free_range(32) is None
