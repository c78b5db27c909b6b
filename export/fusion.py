"""One graph from two that run one after the other, with the very bits that they give apart.

In: a `GraphSource` with stages. Out: one ONNX file. Each stage is traced and measured against its
source by itself; their files are then joined, not traced again, and the joined file is run against
the two, where the bar is equality of every bit.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from export import parity
from export.errors import ParityError
from export.manifest import Parity
from export.onnx_graph import Written, write_graph
from export.sources.source import GraphSource


class Chain(torch.nn.Module):
    """The stages' files, run one after the other; gives what every one of them gives."""

    def __init__(self, stages: list[tuple[GraphSource, Path]]) -> None:
        super().__init__()
        self._stages = [(stage, parity.open_session(file)) for stage, file in stages]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The first stage's inputs -> all outputs of all stages, in order."""
        values, found = list(inputs), []
        for stage, session in self._stages:
            feeds = {
                spec.name: value.numpy() for spec, value in zip(stage.inputs, values, strict=True)
            }
            values = [torch.from_numpy(array) for array in session.run(None, feeds)]
            found += values
        return tuple(found)


def write_stages(
    graph: GraphSource, file: Path, say: Callable[[str], None]
) -> tuple[Written, list[Parity]]:
    """Write two stages as one file. Returns what was written, and the figures of all comparisons.

    Raises:
        GraphError: a stage cannot be exported or does not run.
        ParityError: the joined file gives other bits than its stages.
    """
    figures: list[Parity] = []
    written: list[Written] = []
    with TemporaryDirectory(prefix="stages-", dir=file.parent) as scratch:
        stages = []
        for name, stage in graph.stages.items():
            path = Path(scratch) / f"{name}.onnx"
            say(f"tracing {name}")
            written.append(write_graph(stage, path))
            say(f"comparing {name} with its source")
            figures += parity.measure(name, stage, path)
            stages.append((stage, path))
        say("joining")
        _join(stages, file)
        say("comparing with its stages")
        joined = parity.measure(file.stem, replace(graph, module=Chain(stages)), file)
    if different := [p for p in joined if p.max_abs_error != 0]:
        raise ParityError(
            [f"{p.output} differs from its stage's" for p in different], parity.lines(joined)
        )
    return Written(written[0].opset, sum(one.attention for one in written)), [*figures, *joined]


def _join(stages: list[tuple[GraphSource, Path]], file: Path) -> None:
    """Join two files; the second takes the first's outputs in order."""
    import onnx
    from onnx import compose

    (first, first_file), (second, second_file) = stages
    # Inner names get prefixes that no name of an input or output has.
    left: Any = compose.add_prefix(
        onnx.load(first_file), "first/", rename_inputs=False, rename_outputs=False
    )
    right: Any = compose.add_prefix(
        onnx.load(second_file), "second/", rename_inputs=False, rename_outputs=False
    )
    taken = [tensor.name for tensor in first.outputs]
    wanted = [*taken, *(tensor.name for tensor in second.outputs)]
    pairs = list(zip(taken, (tensor.name for tensor in second.inputs), strict=True))
    merged = compose.merge_models(left, right, io_map=pairs, outputs=wanted)
    onnx.save(merged, file)
