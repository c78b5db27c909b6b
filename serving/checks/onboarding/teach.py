"""`python -m serving checks teach POLICY`: the model's verdicts on many ads in, a router out.

In: a policy's name, a file of ads without labels and a running service, which judges them as they
are. Out: the policy's file with a network and a prototype a category, replaced in one step, and
figures on ads that nothing was fitted to. The model is asked and never changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from export.checks import Affine
from serving.checks.bends import Bent, log_odds
from serving.checks.onboarding import distilling, examples, network_fit
from serving.checks.onboarding.distilling import Limits, Verdicts, Worth
from serving.checks.onboarding.files import Standing, standing
from serving.checks.onboarding.fitting import sigmoid
from serving.checks.onboarding.job import shown
from serving.checks.onboarding.service import Evidence, Service
from serving.checks.policy_file import PolicyFile
from serving.errors import MainJobError
from serving.up.progress import step

LEAST, MOST = 500, 100_000
AT_ONCE = 256  # ads whose pictures are in memory
UNJUDGED = 0.05  # of the ads, at most


def teach(service: Service, name: str, ads: Path, folder: Path) -> tuple[PolicyFile, Worth]:
    """Ask, learn and write a policy. Raises MainJobError, ConfigurationError."""
    lines = examples.lines(ads)
    examples.check_count(ads, len(lines), LEAST, MOST)
    there = standing(service, name, folder)
    with step(f"asking about {name}", len(lines)) as advance:
        rows, encoder = _gathered(service, there.asked, (lines, ads.parent), advance)
    categories = list(there.now["categories"])
    seen = Verdicts(
        np.stack([row.vector for row in rows if row.vector is not None]),
        [row.words for row in rows],
        _probabilities(there, categories, rows),
    )
    review, block = np.array([there.now["thresholds"][one] for one in categories]).T
    limits = Limits(review, block)
    file = there.file or PolicyFile(id=name, version=1)
    with step(f"teaching {name}", network_fit.NETWORKS * network_fit.EPOCHS) as advance:
        file = distilling.distil(file, categories, seen, limits, encoder, advance)
    worth = distilling.worth(file, seen, limits)
    if worth is None:
        without = [n for n, part in (file.risk or {}).items() if part.router is None]
        raise MainJobError(
            f"the model flags too few of {len(rows):,} ads as {without} to say where a router is "
            "sure; add ads that break them, or leave these categories out of the policy"
        )
    return there.write(file), worth


def _gathered(
    service: Service,
    asked: str | None,
    ads: tuple[Sequence[tuple[str, bytes]], Path],
    advance: Callable[[int], None],
) -> tuple[list[Evidence], str]:
    """What the model makes of the ads that can be judged, and the encoders' revision."""
    lines, folder = ads
    rows: list[Evidence] = []
    problems: list[str] = []
    encoders: set[str | None] = set()
    for start in range(0, len(lines), AT_ONCE):
        part = [
            examples.unlabelled(line, where, folder)
            for where, line in lines[start : start + AT_ONCE]
        ]
        found = service.gather(part, lambda _: None, asked, advance)
        rows += [found.rows[place] for place in sorted(found.rows)]
        problems += found.problems
        encoders |= found.encoders
    if len(problems) > UNJUDGED * len(lines):
        raise MainJobError(f"{len(problems)} ads could not be judged: {problems[0]}")
    (encoder, *others) = encoders
    if encoder is None or others or any(row.vector is None for row in rows):
        raise MainJobError("the encoders were away, or changed meanwhile; teach it again")
    return rows, encoder


def _probabilities(there: Standing, categories: Sequence[str], rows: Sequence[Evidence]) -> Any:
    """(n, C): as the policy's calibration has them."""
    curves: dict[str, Affine] = {n: Affine(*there.now["calibration"][n]) for n in categories}
    for name, part in (there.file.risk if there.file and there.file.risk else {}).items():
        if (own := part.calibration) is not None:
            curves[name] = Bent(own.scale, own.bias, own.bends)
    odds = [[log_odds(curves[n], row.log_odds[n]) for n in categories] for row in rows]
    return sigmoid(np.array(odds))


def lines(file: PolicyFile, worth: Worth) -> list[str]:
    """What to print."""
    share = worth.decided / max(1, worth.ads)
    said = [
        f"{file.id} version {file.version}, on {worth.ads:,} ads that nothing was fitted to:",
        f"  the router decides {share:.1%}; the model decides {worth.differ:,} of these otherwise "
        f"({worth.wrongly_let} flagged ads let through, {worth.wrongly_kept} harmless ones kept)",
    ]
    for name, flagged in worth.flagged.items():
        said.append(f"  {name}: {flagged} flagged; router AU-PRC {shown(worth.au_prc[name])}")
    return said


def summary(file: PolicyFile, worth: Worth) -> Mapping[str, Any]:
    """The same for machines."""
    return {"policy": file.id, "version": file.version, **asdict(worth)}
