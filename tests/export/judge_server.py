"""Serves the checks application on vLLM's own engine, without Ray: arguments MODELS REDIS_URL.

Prints the port once it answers; ends when its standard input does.
"""

import asyncio
import os
import sys
from types import SimpleNamespace
from typing import Any


class Handle:
    """What Serve's handle of the engine's deployment looks like."""

    def __init__(self, engine: Any) -> None:
        self.read = SimpleNamespace(remote=engine.read)
        self.generate = SimpleNamespace(remote=engine.generate)
        self.describe = SimpleNamespace(remote=self._describe)

    async def _describe(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "model": "checks", "in_flight": 0}


async def main() -> None:
    import uvicorn

    from export import Repository
    from serving.checks import opening
    from serving.checks.app import create
    from serving.llm.deployment import LlmOptions, open_engine, warm
    from serving.llm.engine import Engine, Limits
    from serving.replica import Replica

    options = LlmOptions()
    bundle = Repository(os.environ["TESSERA_MODELS"]).open("checks")
    limits = Limits(options.llm.waiting, options.llm.waiting_tokens)
    engine = Engine(lambda: open_engine(bundle, options.llm), limits)
    await warm(engine, bundle)
    replica = Replica.local("checks", "/v1/checks")
    bench = await opening.open_bench(replica, options, Handle(engine))
    app = create(replica, bench)

    async def root(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/v1/checks"}, receive, send)

    config = uvicorn.Config(root, port=0, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(f"port {server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await running
    await bench.close()
    os._exit(0)  # vLLM's threads need no farewell


if __name__ == "__main__":
    os.environ["TESSERA_MODELS"], os.environ["TESSERA_REDIS_URL"] = sys.argv[1:]
    asyncio.run(main())
