"""Reads labels with vLLM in a process of its own: arguments are folders of bundles.

In: on standard input, prompts (lists of token ids) as JSON. Out: a line of JSON: for each bundle
the log-probabilities of its two labels, a pair a prompt.
"""

import json
import sys
from pathlib import Path

from benchmarks.checks.opened import values
from export import Repository
from serving.checks.policy import label_ids
from serving.llm.asks import Ask
from serving.llm.deployment import open_engine
from serving.llm.vllm_engine import Job


def main(folders: list[str]) -> None:
    """Print what every model says to every prompt."""
    prompts, sizes = json.load(sys.stdin), values()
    said = []
    for folder in folders:
        bundle = Repository(Path(folder)).open("checks")
        labels, engine = label_ids(bundle), open_engine(bundle, sizes)
        for number, prompt in enumerate(prompts):
            engine.add(Job(str(number), Ask(tuple(prompt)), labels))
        found = {}
        while engine.busy:
            found |= {output.name: output.read(labels).logprobs for output in engine.step()}
        said.append([found[str(number)] for number in range(len(prompts))])
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
