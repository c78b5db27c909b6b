"""ASGI middlewares that stand before Serve's own layers, in the process of a replica.

In: what an application registers while it is constructed. Out: `registered`, which Serve calls by
its import path (`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`) in each process that listens for HTTP.
"""

from starlette.middleware import Middleware

_OF_THIS_PROCESS: list[Middleware] = []


def register(middleware: Middleware) -> None:
    """Put a middleware around those before; until the replica's HTTP server starts."""
    _OF_THIS_PROCESS.append(middleware)


def registered() -> list[Middleware]:
    """This process's middlewares; none in Serve's proxies and other applications' replicas."""
    return list(_OF_THIS_PROCESS)
