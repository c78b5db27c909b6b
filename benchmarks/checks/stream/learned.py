"""The policy of the stream: the shipped one, with a router taught by the model's own verdicts.

In: ads that are not of the streams, with vectors and the model's verdicts. Out: a policy.
"""

from collections.abc import Sequence

import numpy as np

from serving.checks.duplicates import words_of
from serving.checks.onboarding.distilling import Limits, Verdicts, distil
from serving.checks.onboarding.network_fit import EPOCHS, NETWORKS
from serving.checks.policy import Policy
from serving.checks.policy_file import PolicyFile
from serving.checks.subjects import Subject
from serving.up.progress import step

from .reading import Known


def taught(
    policy: Policy,
    subjects: Sequence[Subject],
    read: Known,
    revision: str,
) -> PolicyFile:
    """`policy` with a router."""
    names, limits = policy.categories, policy.checks.thresholds
    said = np.array([[risk.categories[name] for name in names] for risk in read.risks])
    seen = Verdicts(read.vectors, [words_of(subject) for subject in subjects], said)
    bounds = Limits(
        np.array([limits[name].review for name in names]),
        np.array([limits[name].block for name in names]),
    )
    with step(f"teaching by {len(subjects):,} ads", NETWORKS * EPOCHS) as advance:
        file = PolicyFile(id=policy.name, version=1)
        return distil(file, names, seen, bounds, revision, advance)
