"""Graphs of the benchmark's own, as sources that the exporter takes.

In: sizes. Out: a `ModelSource` with random weights.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch

from export.manifest import Source, TensorSpec
from export.sources.source import GraphSource, ModelSource

FEATURES = 64


class _Dlrm(torch.nn.Module):
    """Dense features through an MLP, sparse ones through tables, pairwise dot products, an MLP.

    Source: Naumov et al., "Deep Learning Recommendation Model", 2019.
    """

    offsets: torch.Tensor
    pairs: torch.Tensor

    def __init__(
        self, dense: int, sparse: int, rows: int, width: int, top: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.bottom = _mlp(dense, 512, 256, width)
        self.tables = torch.nn.Embedding(sparse * rows, width)
        self.register_buffer("offsets", torch.arange(sparse) * rows)
        pairs = (sparse + 1) * sparse // 2
        self.top = _mlp(pairs + width, *top, 1)
        lower = torch.tril_indices(sparse + 1, sparse + 1, offset=-1)
        self.register_buffer("pairs", lower[0] * (sparse + 1) + lower[1])

    def forward(self, dense: torch.Tensor, sparse: torch.Tensor) -> torch.Tensor:
        bottom = self.bottom(dense)  # (B, width)
        rows = self.tables(sparse + self.offsets)  # (B, sparse, width)
        vectors = torch.cat([bottom.unsqueeze(1), rows], dim=1)
        products = (vectors @ vectors.transpose(1, 2)).flatten(1)  # (B, (sparse + 1)^2)
        joined = torch.cat([products.index_select(1, self.pairs), bottom], dim=1)
        return torch.sigmoid(self.top(joined)).squeeze(1)


def _mlp(*sizes: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def dlrm(dense: int, sparse: int, rows: int, width: int, top: tuple[int, ...]) -> ModelSource:
    """`dense` float32 (B, dense), `sparse` int64 (B, sparse) -> `score` float32 (B,)."""
    torch.manual_seed(0)

    def sample(sizes: Mapping[str, int], random: torch.Generator) -> tuple[torch.Tensor, ...]:
        batch = sizes["batch"]
        numbers = torch.rand(batch, dense, generator=random)
        return numbers, torch.randint(0, rows, (batch, sparse), generator=random)

    graph = GraphSource(
        module=_Dlrm(dense, sparse, rows, width, top),
        inputs=(
            TensorSpec("dense", "float32", ("batch", dense)),
            TensorSpec("sparse", "int64", ("batch", sparse)),
        ),
        outputs=(TensorSpec("score", "float32", ("batch",)),),
        sample=sample,
        axes={"batch": (1, 3, 64)},
    )
    return ModelSource("ranker", Source("benchmarks/dlrm", "random"), {"model": graph})


def small() -> ModelSource:
    """`features` float32 (B, 64) -> `score` float32 (B, 1): next to nothing to compute."""
    torch.manual_seed(0)

    def sample(sizes: Mapping[str, int], random: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.randn(sizes["batch"], FEATURES, generator=random),)

    graph = GraphSource(
        module=_mlp(FEATURES, 64, 1),
        inputs=(TensorSpec("features", "float32", ("batch", FEATURES)),),
        outputs=(TensorSpec("score", "float32", ("batch", 1)),),
        sample=sample,
        axes={"batch": (1, 3, 32)},
    )
    return ModelSource("ranker", Source("benchmarks/small", "random"), {"model": graph})
