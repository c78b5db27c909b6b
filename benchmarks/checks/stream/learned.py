"""The policy of the stream: what onboarding fits when the model's own verdicts are the labels.

In: ads that are not of the stream, with their vectors and the model's verdicts. Out: a policy with
a prototype for each category, so that the router decides as the model would have.
"""

from collections.abc import Sequence

import numpy as np

from feature_store.progress import bar
from serving.checks.onboarding import learning
from serving.checks.policy import Policy
from serving.checks.policy_file import CategoryPart, Duplicates, PolicyFile
from serving.checks.vectors import Vector
from serving.checks.verdicts import Risk


def taught(
    policy: Policy, vectors: Sequence[Vector], risks: Sequence[Risk], revision: str
) -> PolicyFile:
    """`policy` with prototypes; vectors: (D,) each."""
    rows = np.stack(vectors).astype(float)
    parts: dict[str, CategoryPart] = {}
    with bar("prototypes") as progress:
        for done, name in enumerate(policy.categories):
            limit = policy.checks.thresholds[name].review
            flagged = np.array([risk.categories[name] >= limit for risk in risks])
            found = learning.prototype(rows, flagged, revision)
            parts[name] = CategoryPart(router=None if found is None else found[0])
            progress(done + 1, len(policy.categories))
    return PolicyFile(id=policy.name, version=1, risk=parts, duplicates=Duplicates())
