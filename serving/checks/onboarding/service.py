"""The running checks as onboarding asks them: policies, decisions, evidence of examples.

In: an httpx client with base URL and key. Out: answers; whatever goes wrong is a MainJobError that
says what was asked and what was answered.
"""

import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from serving.checks.onboarding.examples import Example
from serving.errors import MainJobError

PREFIX = "/v1/checks"
CHUNK = 8  # ads a call: 80 reads, well within the deadline on a few cores
DEADLINE_MS = 60_000
TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one example. log_odds: by question. vector: (D,) float32; cosine: to its query.

    words: checksums of the ad's words.
    """

    log_odds: Mapping[str, float]
    vector: NDArray[np.float32] | None
    cosine: float | None
    words: frozenset[int] = frozenset()


@dataclass(slots=True)
class Gathered:
    """Evidence by place of the example; encoders: revisions of what made the vectors."""

    rows: dict[int, Evidence] = field(default_factory=dict)
    encoders: set[str | None] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    @property
    def encoder(self) -> str | None:
        """The one revision; None when it changed meanwhile or was away."""
        return next(iter(self.encoders)) if len(self.encoders) == 1 else None


class Service:
    """The routes of `/v1/checks`. All methods raise MainJobError."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def policies(self) -> dict[str, dict[str, Any]]:
        """The policies that hold, by id."""
        return {policy["id"]: policy for policy in self._ask("GET", "policies")["policies"]}

    def decisions(self) -> list[Mapping[str, Any]]:
        """What people have decided."""
        found: list[Mapping[str, Any]] = self._ask("GET", "overrides")["overrides"]
        return found

    def gather(
        self,
        examples: Sequence[Example],
        query_of: Callable[[Example], str | None],
        policy: str | None,
        advance: Callable[[int], None],
    ) -> Gathered:
        """Evidence of every example: on risk where `query_of` says None, else on that query."""
        groups: dict[tuple[str | None, bool], list[int]] = defaultdict(list)
        for place, example in enumerate(examples):
            groups[query_of(example), "ad_id" in example.ad].append(place)
        found = Gathered()
        for (query, stored), places in groups.items():
            for start in range(0, len(places), CHUNK):
                part = places[start : start + CHUNK]
                ads = [examples[place].ad for place in part]
                named = {"ad_ids": [ad["ad_id"] for ad in ads]} if stored else {"ads": ads}
                body = {"policy": policy, "query": query, "deadline_ms": DEADLINE_MS, **named}
                self._note(found, part, self._ask("POST", "evidence", body))
                advance(len(part))
        return found

    def _note(self, found: Gathered, places: Sequence[int], answer: Mapping[str, Any]) -> None:
        found.encoders.add(answer["encoder"])
        for place, row in zip(places, answer["results"], strict=True):
            if "problem" in row:
                found.problems.append(row["problem"]["detail"])
                continue
            data = row["vector"]
            vector = None if data is None else np.frombuffer(base64.b64decode(data), "<f2")
            found.rows[place] = Evidence(
                row["log_odds"],
                None if vector is None else vector.astype(np.float32),
                row["cosine"],
                frozenset(row["words"]),
            )

    def _ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self._client.request(method, f"{PREFIX}/{route}", json=body)
        except httpx.HTTPError as error:
            raise MainJobError(
                f"{self._client.base_url} does not answer ({error}); start it with "
                "`python -m serving up`, or name it with --url"
            ) from error
        if answer.status_code != 200:
            raise MainJobError(
                f"{method} {PREFIX}/{route} answered {answer.status_code}: {answer.text[:300]}"
            )
        return answer.json()
