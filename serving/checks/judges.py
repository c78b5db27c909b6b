"""One judge a policy, made when it is first asked for and forgotten when its policy changes.

In: the policies that there are now. Out: judges. A request keeps the judge that it began with, so
that one answer is of one policy version; what was on its way under the old one still lands.
"""

from collections.abc import Callable, Sequence

from serving.checks.judge import Judge, Judged
from serving.checks.policies import PolicyBook
from serving.checks.policy import Policy
from serving.checks.subjects import Subject
from serving.checks.verdicts import Relevance, Risk
from serving.deadline import Deadline
from serving.errors import ServingError


class Judges:
    """Judges by policy; its own methods ask the default one."""

    def __init__(self, book: PolicyBook, make: Callable[[Policy], Judge]) -> None:
        self._book = book
        self._make = make
        self._judges: dict[str, Judge] = {}

    def of(self, name: str | None) -> Judge:
        """The judge of a policy, by its id or whole version; None: default. NotFoundError."""
        policy = self._book.find(name)
        judge = self._judges.get(policy.version)
        if judge is None:
            there = {policy.version for policy in self._book.policies.values()}
            self._judges = {v: judge for v, judge in self._judges.items() if v in there}
            judge = self._judges[policy.version] = self._make(policy)
        return judge

    @property
    def policy(self) -> Policy:
        """The default one as it is now."""
        return self._book.find(None)

    async def relevance(
        self, query: str, subjects: Sequence[Subject], deadline: Deadline, priority: int
    ) -> list[Judged[Relevance] | ServingError]:
        """See `Judge.relevance`."""
        return await self.of(None).relevance(query, subjects, deadline, priority)

    async def risk(
        self, subjects: Sequence[Subject], deadline: Deadline, priority: int
    ) -> list[Judged[Risk] | ServingError]:
        """See `Judge.risk`."""
        return await self.of(None).risk(subjects, deadline, priority)
