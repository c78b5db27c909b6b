"""Whether a near copy falls alike: what was said of one creative, carried over to another.

In: two creatives, what was said of one, and the policy with its prototypes. Out: yes or no. A
prototype tells how far a category's log-odds move from one to the other; the verdict must hold
where they are moved to, with a margin. Only the verdict: a category that cannot change it may lie
anywhere. Arithmetic alone: nothing here waits for anything.
"""

from collections.abc import Mapping

from serving.checks import router
from serving.checks.duplicates import Creative, new_words
from serving.checks.policy import Policy
from serving.checks.policy_file import Duplicates, Prototype
from serving.checks.router import logit
from serving.checks.verdicts import Relevance, Risk

EVEN = 0.5  # where a label of relevance changes
SURE = 8.0  # log-odds: what is further on the clean side counts for no more than that


def risk_holds(
    policy: Policy, ad: Creative, other: Creative, said: Risk, probes: Mapping[str, Prototype]
) -> bool:
    """Whether nothing in the copy `ad` could change the verdict on `other`, which is no block."""
    rule = policy.file.duplicates
    if rule is None:
        return False
    new = new_words(ad, other)
    if len(probes) < len(policy.categories):
        return not new and _far(policy, rule, said)
    if not router.knows(policy, new):
        return False
    before, now = router.place(policy, other), router.place(policy, ad)
    most = rule.words if new else rule.moves
    over = False
    for name, probe in probes.items():
        odds, limits = logit(said.categories.get(name, 0.0)), policy.checks.thresholds[name]
        review, block = logit(limits.review), logit(limits.block)
        clean = odds < review
        if clean and router.score(probe, now) <= probe.below:
            continue  # without the other too
        step = float(probe.vector @ (now - before))
        if (step if clean else abs(step)) > most:
            return False
        moved = max(-SURE, odds) + step
        if moved + rule.margin >= (review if said.verdict == "allow" else block):
            return False
        over = over or moved - rule.margin >= review
    return over or said.verdict == "allow"


def relevance_holds(
    rule: Duplicates, ad: Creative, other: Creative, said: Relevance, moved: float | None
) -> bool:
    """The same of one query; moved: how far the router's log-odds move, None without one."""
    if abs(logit(said.score) - logit(EVEN)) < rule.margin:
        return False
    # Without a probe that would see a difference, no new word may have changed the meaning.
    return not new_words(ad, other) if moved is None else moved <= rule.margin


def _far(policy: Policy, rule: Duplicates, said: Risk) -> bool:
    """Whether every probability is so far from its thresholds that a copy's falls alike."""
    return all(
        abs(logit(said.categories.get(name, 0.0)) - logit(bound)) >= rule.margin
        for name, limits in policy.checks.thresholds.items()
        for bound in (limits.review, limits.block)
    )
