"""What operators see of checks, and may do: the engine's state, owed verdicts, dead letters.

In: a `Bench`. Out: routes of scope `admin`.
"""

from collections.abc import Awaitable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query
from redis.exceptions import RedisError

from serving import http
from serving.checks.opening import Bench
from serving.errors import UnavailableError

DESCRIBE_S = 2.0
SHOWN, MOST_SHOWN = 100, 1_000
Count = Annotated[int, Query(ge=1, le=MOST_SHOWN)]
_Result = TypeVar("_Result")


def add_owed_routes(app: FastAPI, bench: Bench) -> None:
    """Add `/engine`, `/owed` and `/owed/revive`."""
    admin = [http.requires("admin")]

    @app.get("/engine", dependencies=admin)
    async def engine() -> dict[str, Any]:
        """For operators: the engine's process and model, and how many verdicts are owed."""
        owed = await stored(bench.owed.count())
        return {"owed": owed, **await bench.engine.describe(DESCRIBE_S)}

    @app.get("/owed", dependencies=admin)
    async def owed(count: Count = SHOWN) -> dict[str, Any]:
        """How far behind the verdicts are that nobody waits for, and which will not be made."""
        lag = await stored(bench.owed.lag())
        letters = await stored(bench.owed.dead(count))
        return {**asdict(lag), "dead_letters": [asdict(letter) for letter in letters]}

    @app.post("/owed/revive", dependencies=admin)
    async def revive(count: Count = SHOWN) -> dict[str, int]:
        """Owe the oldest dead letters again, once their cause is gone."""
        return {"revived": await stored(bench.owed.revive(count))}


async def stored(call: Awaitable[_Result]) -> _Result:
    """The result of a store call. Raises UnavailableError."""
    try:
        return await call
    except RedisError as error:
        raise UnavailableError(f"the feature store failed: {error}") from error
