"""What every source of a model is turned into before it is exported.

A family's reader (one file each, beside this one) gives a `ModelSource`; so may any code of yours:
see docs/bring_your_own_model.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from export.manifest import Source, TensorSpec

# Sizes of the dynamic axes and a random generator -> one tensor per input, in their order.
Sampler = Callable[[Mapping[str, int], torch.Generator], tuple[torch.Tensor, ...]]


@dataclass(frozen=True, slots=True)
class GraphSource:
    """One function of a model: what to trace, and how to try it.

    Attributes:
        module: its `forward` takes the inputs in order and returns the outputs in order.
        inputs, outputs: names, dtypes, shapes; a `str` in a shape is a dynamic axis.
        sample: draws inputs that are typical of the real ones.
        axes: for each dynamic axis the sizes that parity is measured at, the largest last.
        rows: how many rows at least it is measured on at each batch size; for outputs where a
            rare row that differs must be found. 0: one batch.
        single_rows: how many of these at a batch of one, where each is a run of its own.
        attention: how many layers' attention there is; each must become one node.
        stages: for a graph that is two others, one after the other: their names and themselves.
            Each is traced and measured alone, the file is put together from theirs, and must give
            the same bits as they do.
    """

    module: torch.nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sample: Sampler
    axes: Mapping[str, tuple[int, ...]]
    rows: int = 0
    single_rows: int = 2048
    attention: int = 0
    stages: Mapping[str, "GraphSource"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that is ready to be exported.

    Attributes:
        kind: `image_encoder`, `text_encoder`, `semantic_id`, ...: what serving takes it for.
        source: name and revision, for the manifest.
        graphs: `model` where there is one graph, else a name for each.
        files: what goes into the bundle beside the graphs, such as `tokenizer.json`.
        copied: the same, by path: a language model has gigabytes.
        written: the same, by a function that writes the file it is given.
        metadata: what serving needs to know besides tensors (JSON).
    """

    kind: str
    source: Source
    graphs: Mapping[str, GraphSource]
    files: Mapping[str, bytes] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    copied: Mapping[str, Path] = field(default_factory=dict)
    written: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
