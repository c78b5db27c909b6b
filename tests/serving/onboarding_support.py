"""The running checks as the command asks them, in one process."""

import asyncio

import httpx

from serving.checks.onboarding.service import Service
from tests.serving.checks_support import Parts


class Bridge(httpx.BaseTransport):
    """Lets a client of another thread talk to the app of this loop."""

    def __init__(self, app: httpx.AsyncClient) -> None:
        self._app = app
        self._loop = asyncio.get_running_loop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/checks")
        call = self._app.request(
            request.method, path, content=request.read(), headers=dict(request.headers)
        )
        found = asyncio.run_coroutine_threadsafe(call, self._loop).result(60)
        return httpx.Response(found.status_code, content=found.content, headers=found.headers)


def service(parts: Parts) -> Service:
    return Service(httpx.Client(transport=Bridge(parts.http), base_url="http://checks"))
