"""What the model says of tens of thousands of ads: the audit that the stream is judged by.

In: subjects. Out: their vectors, and the model's verdict of each. The engine reads a question at a
time, some 200 a CPU-second; here the reference implementation reads all questions of an ad in one
pass, in float32. Both say the same but for rounding, which can only add to what differs; how far
they lie apart is measured (`apart`). What was read is kept under FOLDER for the next run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.reference.checks.examples import Example, risk_checks
from export.reference.checks.prompt import QUESTIONS, Ad
from export.reference.checks.run import SHIPPED_CHECKS, load_checks
from export.reference.checks.training import answer_logits
from feature_store.progress import bar
from serving.checks.policy import Policy, label_mass, probability
from serving.checks.router import logit
from serving.checks.subjects import Subject
from serving.checks.verdicts import Risk
from serving.encode.pipeline import fuse
from serving.ingest.ads import Ad as Sent
from serving.llm.asks import Read

from ...errors import InvalidRunError
from ..near_models import NearModels

FOLDER = Path("var/bench-reads")
CHUNK, BATCH = 1_000, 16

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Known:
    """n ads: vectors (n, D) float32, and the model's verdicts."""

    vectors: Matrix
    risks: list[Risk]


class Reading:
    """The reference model and the towers, in batches."""

    def __init__(self, near: NearModels, policy: Policy) -> None:
        if tuple(QUESTIONS) != policy.categories:
            raise InvalidRunError("the policy does not ask what the reference model was taught")
        self._near = near
        self._policy = policy
        self._model, self._packer, self._adapter = load_checks(SHIPPED_CHECKS)

    async def read(self, subjects: Sequence[Subject], name: str) -> Known:
        """All of them, from what is kept as `name` where it is of these ads."""
        vectors: list[Matrix] = []
        risks: list[Risk] = []
        with bar(f"read: {name}") as progress:
            for start in range(0, len(subjects), CHUNK):
                part = subjects[start : start + CHUNK]
                mark = self._near.bundle.bundle_hash[:8]
                one, said = await self._kept(part, FOLDER / f"{name}-{mark}-{start}.npz")
                vectors.append(one)
                risks += [self._risk(row) for row in said]
                progress(len(risks), len(subjects))
        return Known(np.concatenate(vectors), risks)

    async def _kept(self, part: Sequence[Subject], file: Path) -> tuple[Matrix, Matrix]:
        contents = np.array([list(one.content) for one in part], np.uint8)
        if file.is_file():
            with np.load(file) as kept:
                if np.array_equal(kept["contents"], contents):
                    return kept["vectors"], kept["logprobs"]
        vectors: list[Matrix] = []
        said: list[Matrix] = []
        for start in range(0, len(part), BATCH):
            some = part[start : start + BATCH]
            seen, fused = await self._encoded(some)
            vectors.append(fused)
            said.append(self._asked(some, seen))
        found = np.concatenate(vectors), np.concatenate(said)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{id(part)}.npz")
        np.savez(draft, contents=contents, vectors=found[0], logprobs=found[1])
        draft.replace(file)
        return found

    async def _encoded(self, subjects: Sequence[Subject]) -> tuple[Matrix, Matrix]:
        """Image features (n, F) and fused vectors (n, D); every ad has words and a picture."""
        near, target = self._near, await self._near.towers.target()
        images = [await near.images.decode(one.picture or b"", target) for one in subjects]
        pixels = await near.images.fit(images, target)
        out = await near.picture.infer({"pixels": pixels})
        seen: Matrix = out["image_features"].astype(np.float32)
        words: list[str | None] = [Sent(0, one.title, one.text, None).words for one in subjects]
        read, _ = await near.towers.embed([None] * len(words), words)
        return seen, fuse(seen.copy(), np.array(read))

    def _asked(self, subjects: Sequence[Subject], seen: Matrix) -> Matrix:
        """Log-probabilities (n, C, 2) of yes and no."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # several wait for each other, the more the busier the machine
        ads = [Example(Ad(one.title, one.text, ""), risk_checks(set()), None) for one in subjects]
        with torch.inference_mode():
            soft = self._adapter(torch.from_numpy(seen))
            found: Any = answer_logits(self._model, self._packer.pack(ads, soft=True), soft)
            both = found.log_softmax(1)[:, [self._packer.yes, self._packer.no]].numpy()
        torch.set_num_threads(threads)
        said: Matrix = both.reshape(len(subjects), len(QUESTIONS), 2)
        return said

    def _risk(self, said: Matrix) -> Risk:
        reads = [Read((float(yes), float(no)), 0) for yes, no in said]
        lines = self._policy.checks.calibration.risk
        found = {n: probability(r, lines[n]) for n, r in zip(QUESTIONS, reads, strict=True)}
        mass = min(map(label_mass, reads))
        return Risk(self._policy.verdict(found, mass), found, mass)


def apart(here: Sequence[Risk], engine: Sequence[Risk]) -> dict[str, float]:
    """How far two readings of the same ads lie apart: log-odds, and verdicts that differ."""
    gaps = [
        abs(logit(one.categories[name]) - logit(p))
        for one, other in zip(here, engine, strict=True)
        for name, p in other.categories.items()
        if min(one.categories[name], p) > 1e-4 < 1 - max(one.categories[name], p)
    ]
    pairs = list(zip(here, engine, strict=True))
    return {
        "ads": len(pairs),
        "median_log_odds": round(float(np.median(gaps)), 4),
        "largest_log_odds": round(float(max(gaps)), 4),
        "other_verdicts": sum(one.verdict != other.verdict for one, other in pairs),
    }
