"""A policy's text and few-shot examples, put where the model reads them: behind its own prefix.

In: a policy and the bundle's tokenizer. Out: the policy with longer prompts, which the engine still
computes once. The text is the operator's and may hold the model's own tokens; the words of examples
come from ads: no added token of the tokenizer survives in them.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export.checks import Checks, Prompt, places
from export.prompts import Renderer, Words, clean, normalise_query
from serving.checks.policy import Policy
from serving.checks.policy_file import Example
from serving.errors import ConfigurationError

_FULL = " ".join("q" * 20_000)  # a letter a word is at least a token each


def added_tokens(tokenizer: Path) -> tuple[str, ...]:
    """The strings of a `tokenizer.json` that mean something to the model; longest first."""
    found = json.loads(tokenizer.read_bytes())["added_tokens"]
    return tuple(sorted((str(token["content"]) for token in found), key=len, reverse=True))


def taught(policy: Policy, special: Sequence[str], renderer: Renderer) -> Policy:
    """The policy with its text and examples in its prompts.

    special: `added_tokens`. Raises ConfigurationError when a prompt no longer fits the context.
    """
    file, checks = policy.file, policy.checks
    if not file.text and not file.examples:
        return policy
    unknown = {e.category for e in file.examples} - {None} - set(policy.categories)
    if unknown:
        raise ConfigurationError(
            f"policy {file.id}: examples: no category {sorted(map(str, unknown))}; "
            f"expected some of {list(policy.categories)}"
        )

    def longer(prompt: Prompt, category: str | None) -> Prompt:
        shown = [e for e in file.examples if e.category == category]
        lines = "".join(_shown(prompt, e, checks, special) + file.example_end for e in shown)
        return replace(prompt, prefix=prompt.prefix + file.text + lines)

    prompts = replace(
        checks.prompts,
        relevance=longer(checks.prompts.relevance, None),
        risk={name: longer(prompt, name) for name, prompt in checks.prompts.risk.items()},
    )
    _check_fits(renderer, file.id, [prompts.relevance, *prompts.risk.values()], checks.context)
    return replace(policy, checks=replace(checks, prompts=prompts))


def neutral(words: str, special: Sequence[str]) -> str:
    """Words in one line without any of the tokens that mean something to the model."""
    words = clean(words)
    while any(token in words for token in special):  # taking one out may put another together
        for token in special:
            words = words.replace(token, " ")
    return clean(words)


def _shown(prompt: Prompt, example: Example, checks: Checks, special: Sequence[str]) -> str:
    fields = {
        "title": example.title,
        "text": example.text,
        "query": normalise_query(example.query or ""),
    }
    body = "".join(
        literal + neutral(fields.get(place or "", ""), special)
        for literal, place in places(prompt.body)
    )
    return body + prompt.suffix + (checks.labels.yes if example.label else checks.labels.no)


def _check_fits(renderer: Renderer, name: str, prompts: Sequence[Prompt], context: int) -> None:
    words = Words(_FULL, _FULL, _FULL, image=True)
    longest = 1 + max(len(renderer.render(prompt, words).ids) for prompt in prompts)
    if longest > context:
        raise ConfigurationError(
            f"policy {name}: with its text and examples a prompt may have {longest} tokens, the "
            f"model reads {context}: shorten them"
        )
