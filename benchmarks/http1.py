"""An HTTP/1.1 client that costs little, so that a benchmark measures the server and not itself.

In: one URL's host and port, and whole requests as bytes. Out: status and body. Connections are
kept and reused; a request that finds none free opens another, as an open loop must, up to MOST:
HAProxy takes 4,096, and free ones that are kept would shut out those that wait to be taken. Only
answers with a content length are read, which is what Serve and HAProxy send for whole bodies.
"""

import asyncio
from urllib.parse import urlsplit

import orjson

MOST = 2048
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Http:
    """A pool of connections to one server; `key` is sent as the bearer key."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"expected http://host:port, found {url!r}")
        self._address = (parts.hostname, parts.port or 80)
        self._common = f"host: {parts.hostname}\r\n"
        if key:
            self._common += f"authorization: Bearer {key}\r\n"
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(MOST)

    def request(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> bytes:
        """One whole request, made before the clock runs."""
        head = f"{method} {path} HTTP/1.1\r\n{self._common}content-length: {len(body)}\r\n"
        if body:
            head += f"content-type: {kind}\r\n"
        return head.encode() + b"\r\n" + body

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. A kept connection that the server has closed is replaced once."""
        async with self._slots:
            while self._free:
                try:
                    return await self._exchange(self._free.pop(), request)
                except (asyncio.IncompleteReadError, ConnectionError):
                    continue
            return await self._exchange(await asyncio.open_connection(*self._address), request)

    async def _exchange(self, connection: Connection, request: bytes) -> tuple[int, bytes]:
        """One request; a connection that does not answer it whole is closed."""
        try:
            return await self._answer(connection, request)
        except BaseException:
            connection[1].close()
            raise

    async def _answer(self, connection: Connection, request: bytes) -> tuple[int, bytes]:
        reader, writer = connection
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        # An answer of unknown length (a refusal of Serve's own) leaves bytes that are not the next.
        if fields.get("connection") == "close" or "content-length" not in fields:
            writer.close()
        else:
            self._free.append(connection)
        return int(lines[0].split(" ", 2)[1]), body

    def close(self) -> None:
        """Close the connections that are free."""
        while self._free:
            self._free.pop()[1].close()


def multipart(parts: dict[str, bytes | str]) -> tuple[bytes, str]:
    """A form as (body, content type); bytes are sent as a file of that name."""
    boundary = "tessera-benchmark-part"
    out = []
    for name, value in parts.items():
        file = f'; filename="{name}"' if isinstance(value, bytes) else ""
        data = value if isinstance(value, bytes) else value.encode()
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'
        out.append(head.encode() + data + b"\r\n")
    return b"".join([*out, f"--{boundary}--\r\n".encode()]), (
        f"multipart/form-data; boundary={boundary}"
    )


def refusal(status: int, body: bytes) -> str:
    """What an answer that is not the expected one says of itself, in a few words."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return f"HTTP {status}"
    told = said.get("title") or said.get("degraded") if isinstance(said, dict) else None
    return f"HTTP {status}: {told or 'unexpected answer'}"
