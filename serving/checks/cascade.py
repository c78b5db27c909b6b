"""What is tried before the language model: a near copy's verdict, and the router.

In: one subject whose verdict nobody has made yet. Out: a verdict that says who made it. Whatever
fails before the model (encoders away, store away) is no reason not to ask the model.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from serving.checks import copies, router
from serving.checks.duplicates import Creative, Creatives
from serving.checks.overrides import Overrides
from serving.checks.policy import Policy
from serving.checks.subjects import Subject
from serving.checks.understander import SOON, Understander
from serving.checks.vectors import Space
from serving.checks.verdicts import Caption, Relevance, Risk, Scope, VerdictStore
from serving.errors import ServingError

_Kind = TypeVar("_Kind", Relevance, Risk)
NOTED = 4096  # unclear verdicts of the router that are remembered

logger = logging.getLogger("tessera.checks")


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before the model, shared by all policies."""

    space: Space
    creatives: Creatives
    overrides: Overrides
    relevance: VerdictStore[Relevance]
    risk: VerdictStore[Risk]


class Cascade:
    """One policy's. The same methods as `Understander`, which is asked at last."""

    def __init__(
        self, model: Understander, policy: Policy, before: Before, scope: Callable[[], Scope]
    ) -> None:
        self.model = model
        self._policy = policy
        self._before = before
        self._scope = scope
        self._unclear: OrderedDict[tuple[str, bytes], Relevance | Risk] = OrderedDict()

    def meanwhile(self, query: str, subject: Subject) -> Relevance | Risk | None:
        """What the router thought and was not sure of; without it, what the model's stand-in says.

        A block or an approval that the router is not sure of is for somebody to look at.
        """
        known = self._unclear.get((query, subject.content))
        return known or self.model.meanwhile(query, subject)

    async def relevance(self, query: str, subject: Subject, priority: int = SOON) -> Relevance:
        """Does this ad answer the query? Raises ServingError."""
        found = None
        if self._policy.file.duplicates or self._policy.file.relevance.router:
            try:
                found = await self._relevance(query, subject)
            except ServingError as error:
                _not_shortly(error)
        return found or await self.model.relevance(query, subject, priority)

    async def risk(self, subject: Subject, priority: int) -> Risk:
        """What is wrong with this ad, by category? Raises ServingError."""
        found = None
        if self._policy.file.duplicates or self._policy.file.risk:
            try:
                found = await self._risk(subject)
            except ServingError as error:
                _not_shortly(error)
        return found or await self.model.risk(subject, priority)

    async def caption(self, subject: Subject) -> Caption:
        """See `Understander.caption`: nothing cheaper describes an image."""
        return await self.model.caption(subject)

    def tell(self, subject: Subject) -> AsyncGenerator[str]:
        """See `Understander.tell`."""
        return self.model.tell(subject)

    async def _relevance(self, query: str, subject: Subject) -> Relevance | None:
        ad, revision = await self._place(subject)
        rule, asked = self._policy.file.relevance.router, None
        if rule is not None and rule.encoder == revision:
            asked, now = await self._before.space.query(query)
            found = router.relevance(self._policy, now, asked, ad.vector)
            if found is not None:
                return found
            cosine = float(asked @ ad.vector)
            self._note(query, subject, router.by_cosine(self._policy, rule.calibration, cosine))
        for other, verdict in await self._near(ad, revision, self._before.relevance, query):
            moved = None
            if rule is not None and asked is not None:
                moved = rule.calibration.scale * abs(float(asked @ (ad.vector - other.vector)))
            duplicates = self._policy.file.duplicates
            if duplicates and copies.relevance_holds(duplicates, ad, other, verdict, moved):
                return replace(verdict, by="duplicate")
        return None

    async def _risk(self, subject: Subject) -> Risk | None:
        ad, revision = await self._place(subject)
        probes = router.prototypes(self._policy, revision)
        for other, verdict in await self._near(ad, revision, self._before.risk, ""):
            if verdict.verdict == "block":  # somebody looks at it, whatever else is true
                return replace(verdict, verdict="review", by="duplicate")
            if copies.risk_holds(self._policy, ad, other, verdict, probes):
                return replace(verdict, by="duplicate")
        if not probes or not router.knows(self._policy, ad.words):
            return None
        seen = router.place(self._policy, ad)
        said = {name: router.score(probe, seen) for name, probe in probes.items()}
        self._note("", subject, Risk("review", said, 1.0, (), "router"))
        return router.risk(self._policy, revision, seen)

    def _note(self, query: str, subject: Subject, said: Relevance | Risk) -> None:
        self._unclear[query, subject.content] = said
        if len(self._unclear) > NOTED:
            self._unclear.popitem(last=False)

    async def _place(self, subject: Subject) -> tuple[Creative, str]:
        vector, revision = await self._before.space.ad(subject)
        ad = Creative.of(subject, vector)
        self._before.creatives.add(ad, revision)
        return ad, revision

    async def _near(
        self, ad: Creative, revision: str, store: VerdictStore[_Kind], query: str
    ) -> list[tuple[Creative, _Kind]]:
        """Near copies that have a verdict which is no copy's itself, the nearest first."""
        rule = self._policy.file.duplicates
        if rule is None:
            return []
        near = await self._before.creatives.near(ad, rule.cosine, revision)
        if not near:
            return []
        task, scope = "relevance" if query else "risk", self._scope()
        verdicts = await store.get(
            [scope.key(task, one.content, query) for one in near],
            [[self._before.overrides.by_content(task, one.content, query)] for one in near],
        )
        pairs = zip(near, verdicts, strict=True)
        return [(one, said) for one, said in pairs if said is not None and said.by != "duplicate"]


def _not_shortly(error: ServingError) -> None:
    logger.warning("the model is asked, since what is before it failed: %s", error)
