"""Requests made from an application's own OpenAPI document: none may be answered with a 5xx.

In: a client, an application's prefix, and what to leave alone. Out: what was answered.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

Spare = Callable[[dict[str, Any]], bool]


def fuzz(
    client: httpx.Client, prefix: str, *, examples: int, within_s: float, spare: Spare
) -> tuple[Counter[int], list[str]]:
    """Send up to `examples` valid and as many broken requests to every route below `prefix`.

    Each route has its share of `within_s`. spare: path parameters that belong to somebody else.
    Returns how many answers had each status, and the requests that were answered with a 5xx.
    """
    schema = schemathesis.openapi.from_dict(client.get(f"{prefix}/openapi.json").json())
    operations = [each.ok() for each in schema.get_all_operations()]
    base = f"{client.base_url}".rstrip("/") + prefix
    found: Counter[int] = Counter()
    broken: list[str] = []
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            until = time.monotonic() + within_s / (2 * len(operations))

            def ask(case: schemathesis.Case) -> None:
                if time.monotonic() > until:  # noqa: B023 - called before the next round
                    return
                assume(not spare(dict(case.path_parameters or {})))
                answer = case.call(base_url=base, headers=dict(client.headers))
                found[answer.status_code] += 1
                if answer.status_code >= 500:
                    broken.append(f"{answer.status_code} {case.as_curl_command()}"[:600])

            with suppress(Unsatisfiable):  # nothing about it can be wrong
                bounded(examples)(given(case=operation.as_strategy(generation_mode=mode))(ask))()
    return found, broken


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
