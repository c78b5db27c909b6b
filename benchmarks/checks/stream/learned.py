"""The policy of the stream: the shipped one, with a router taught by the model's own verdicts.

In: ads that are not of the stream, with their vectors and the model's verdicts. Out: a policy.
"""

from collections.abc import Sequence

import numpy as np

from feature_store.progress import bar
from serving.checks.duplicates import words_of
from serving.checks.onboarding.distilling import Limits, Verdicts, distil
from serving.checks.policy import Policy
from serving.checks.policy_file import PolicyFile
from serving.checks.subjects import Subject
from serving.checks.vectors import Vector
from serving.checks.verdicts import Risk


def taught(
    policy: Policy,
    subjects: Sequence[Subject],
    vectors: Sequence[Vector],
    risks: Sequence[Risk],
    revision: str,
) -> PolicyFile:
    """`policy` with a router. vectors: (D,) each."""
    names, limits = policy.categories, policy.checks.thresholds
    said = np.array([[risk.categories[name] for name in names] for risk in risks])
    seen = Verdicts(np.stack(vectors), [words_of(subject) for subject in subjects], said)
    bounds = Limits(
        np.array([limits[name].review for name in names]),
        np.array([limits[name].block for name in names]),
    )
    with bar("ads that the router learned from") as progress:
        found = distil(PolicyFile(id=policy.name, version=1), names, seen, bounds, revision)
        progress(len(subjects), len(subjects))
    return found
