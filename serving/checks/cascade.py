"""What is tried before the language model: a near copy's verdict, and the router.

In: one subject whose verdict nobody has made yet. Out: a verdict that says who made it. Whatever
fails before the model (encoders away, store away) is no reason not to ask the model.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from serving.checks import router
from serving.checks.duplicates import Creative, Creatives, new_words
from serving.checks.overrides import Overrides
from serving.checks.policy import Policy
from serving.checks.policy_file import Prototype
from serving.checks.router import logit
from serving.checks.subjects import Subject
from serving.checks.understander import SOON, Understander
from serving.checks.vectors import Space
from serving.checks.verdicts import Caption, Relevance, Risk, Scope, VerdictStore
from serving.errors import ServingError

_Kind = TypeVar("_Kind", Relevance, Risk)
NOTED = 4096  # unclear verdicts of the router that are remembered
EVEN = 0.5  # where a label of relevance changes

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
            clear = self._clear({"": verdict.score}, {"": (EVEN,)})
            if clear and self._same(ad, other, moved):
                return replace(verdict, by="duplicate")
        return None

    async def _risk(self, subject: Subject) -> Risk | None:
        ad, revision = await self._place(subject)
        limits, probes = self._policy.checks.thresholds, router.prototypes(self._policy, revision)
        for other, verdict in await self._near(ad, revision, self._before.risk, ""):
            if verdict.verdict == "block":  # somebody looks at it, whatever else is true
                return replace(verdict, verdict="review", by="duplicate")
            bounds = {n: (limits[n].review, limits[n].block) for n in self._policy.categories}
            if self._clear(verdict.categories, bounds) and self._copy(ad, other, verdict, probes):
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

    def _copy(
        self, ad: Creative, other: Creative, said: Risk, probes: Mapping[str, Prototype]
    ) -> bool:
        """Whether nothing in a copy could change what was said of the other."""
        rule, limits = self._policy.file.duplicates, self._policy.checks.thresholds
        new = new_words(ad, other)
        if rule is None or len(probes) < len(self._policy.categories):
            return not new
        if not router.knows(self._policy, new):
            return False
        before, now = router.place(self._policy, other), router.place(self._policy, ad)
        clean = {name: said.categories.get(name, 0.0) < limits[name].review for name in probes}
        most = rule.margin if new else rule.moves
        return all(
            router.stays(probe, clean[name], before, now, most) for name, probe in probes.items()
        )

    def _same(self, ad: Creative, other: Creative, moved: float | None) -> bool:
        """Without a probe that would see a difference, no new word may have changed the meaning."""
        rule = self._policy.file.duplicates
        if moved is not None and rule is not None:
            return moved <= rule.margin
        return not new_words(ad, other)

    def _clear(self, said: Mapping[str, float], bounds: Mapping[str, tuple[float, ...]]) -> bool:
        """Whether every probability is so far from its bounds that a copy's falls alike."""
        rule = self._policy.file.duplicates
        margin = rule.margin if rule is not None else 0.0
        return all(
            abs(logit(said.get(name, 0.0)) - logit(bound)) >= margin
            for name, several in bounds.items()
            for bound in several
        )


def _not_shortly(error: ServingError) -> None:
    logger.warning("the model is asked, since what is before it failed: %s", error)
