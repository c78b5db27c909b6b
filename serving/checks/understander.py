"""From a creative to the model's judgement of it: prompts out, probabilities back; stores nothing.

In: subjects. Out: `Relevance`, `Risk`, `Caption`, or the ServingError that stood in the way. Plain
async code: the engine is behind `Reader`s, so tests and benchmarks run it without Ray.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from export.checks import Prompt
from export.prompts import Renderer, Words
from serving.checks.flights import Reader
from serving.checks.policy import Policy, label_mass, probability
from serving.checks.sight import Sight, Soft
from serving.checks.subjects import Subject, Subjects
from serving.checks.verdicts import Caption, Relevance, Risk
from serving.errors import InvalidContentError, InvalidImageError, UnavailableError
from serving.image import ImagePool
from serving.llm.asks import Ask
from serving.llm.handle import LlmHandle

SOON, LATER = 0, 10  # priorities: somebody waits, or nobody does
CAPTION_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Eyes:
    """How pictures are found and looked at."""

    subjects: Subjects
    sight: Sight
    images: ImagePool

    async def soft(self, subject: Subject) -> Soft | None:
        """Soft tokens of a subject's image; None without. Raises ServingError."""
        picture = await self.subjects.picture(subject)
        return None if picture is None else await self.sight.look(picture, self.images)


class Understander:
    """One policy over one engine. `readers`: by priority."""

    def __init__(
        self,
        policy: Policy,
        renderer: Renderer,
        eyes: Eyes,
        readers: dict[int, Reader],
        engine: LlmHandle,
    ) -> None:
        self._policy = policy
        self._renderer = renderer
        self._eyes = eyes
        self._readers = readers
        self._engine = engine

    async def relevance(self, query: str, subject: Subject, priority: int = SOON) -> Relevance:
        """Does this ad answer the query? Raises ServingError."""
        checks = self._policy.checks
        asks, cut = await self._asks(subject, [checks.prompts.relevance], query, priority)
        read = (await self._readers[priority].read(asks))[0]
        score = probability(read, checks.calibration.relevance)
        label = checks.labels.yes if score >= 0.5 else checks.labels.no
        return Relevance(score, label.strip(), label_mass(read), cut)

    async def risk(self, subject: Subject, priority: int) -> Risk:
        """What is wrong with this ad, by category? Raises ServingError."""
        checks = self._policy.checks
        names = self._policy.categories
        prompts = [checks.prompts.risk[name] for name in names]
        asks, cut = await self._asks(subject, prompts, "", priority)
        reads = await self._readers[priority].read(asks)
        found = {
            name: probability(read, checks.calibration.risk[name])
            for name, read in zip(names, reads, strict=True)
        }
        mass = min(map(label_mass, reads))
        return Risk(self._policy.verdict(found, mass), found, mass, cut)

    async def caption(self, subject: Subject) -> Caption:
        """What the image shows. Raises InvalidContentError when there is none to look at."""
        ask, most = await self._describing(subject)
        ids = await self._engine.generate(ask, most, CAPTION_TIMEOUT_S)
        return Caption(self._renderer.decode(list(ids)))

    async def tell(self, subject: Subject) -> AsyncGenerator[str]:
        """The same as it is written: every time all that is there. To close it ends the writing."""
        ask, most = await self._describing(subject)
        ids: list[int] = []
        async with aclosing(self._engine.stream(ask, most)) as pieces:
            async for piece in pieces:
                ids += piece
                yield self._renderer.decode(ids)

    async def _describing(self, subject: Subject) -> tuple[Ask, int]:
        prompt = self._policy.checks.prompts.caption
        if prompt is None:
            raise UnavailableError("this model has no caption prompt; export one that does")
        soft = await self._eyes.soft(subject)
        if soft is None:
            blind = self._eyes.sight.blind
            raise InvalidContentError(blind or "expected an ad with an image; found none")
        rendered = self._renderer.render(
            prompt.prompt, Words(subject.title, subject.text, "", True)
        )
        return Ask(rendered.ids, soft, rendered.soft_at, SOON), prompt.max_tokens

    async def warm(self) -> None:
        """Have what all ads share computed. Raises ServingError."""
        prompts = self._policy.checks.prompts
        several = (prompts.relevance, *prompts.risk.values())
        asks = [Ask(self._renderer.render(one, Words()).ids, priority=LATER) for one in several]
        await self._readers[LATER].read(asks)

    def meanwhile(self, query: str, subject: Subject) -> Risk | None:
        """What can be said without the model: somebody has to look, or nothing about relevance."""
        del subject
        return None if query else Risk("review", {}, 0.0, (), "router")

    async def _asks(
        self, subject: Subject, prompts: Sequence[Prompt], query: str, priority: int
    ) -> tuple[list[Ask], tuple[str, ...]]:
        """An ask a prompt, and which fields were cut short."""
        self._engine.check()  # before any picture is decoded for nothing
        try:
            soft = await self._eyes.soft(subject)
        except InvalidImageError as error:
            raise InvalidContentError(f"the ad's image: {error.detail}") from error
        words = Words(subject.title, subject.text, query, soft is not None)
        rendered = [self._renderer.render(prompt, words) for prompt in prompts]
        cut = tuple(dict.fromkeys(field for one in rendered for field in one.cut))
        asks = [
            Ask(one.ids, None if one.soft_at is None else soft, one.soft_at, priority)
            for one in rendered
        ]
        return asks, cut
