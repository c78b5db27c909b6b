"""What others quantize with, in the same run: residual k-means of equal sizes, faiss RQ and PQ.

In: training rows, all rows, a seed. Out: codes (n, levels) or None, reconstructed rows (n, D).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.semantic_id.model import SIZES

Rows = NDArray[np.float32]
Peer = Callable[[Rows, Rows, int], tuple[NDArray[np.int32], Rows]]


def residual_kmeans(train: Rows, rows: Rows, seed: int) -> tuple[NDArray[np.int32], Rows]:
    """One chain of k-means on what is left, of the sizes of the semantic IDs."""
    import faiss

    left, rest, codes = train, rows, []
    for size in SIZES:
        means: Any = faiss.Kmeans(
            train.shape[1],
            size,
            niter=15,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=1 << 20,
        )
        means.train(np.ascontiguousarray(left))
        left = left - means.centroids[means.index.search(np.ascontiguousarray(left), 1)[1][:, 0]]
        chosen = means.index.search(np.ascontiguousarray(rest), 1)[1][:, 0]
        rest = rest - means.centroids[chosen]
        codes.append(chosen)
    return np.stack(codes, 1).astype(np.int32), rows - rest


def residual_quantizer(train: Rows, rows: Rows, seed: int) -> tuple[NDArray[np.int32], Rows]:
    """faiss' residual quantizer with its beam, 6 x 256: 48 bits."""
    import faiss

    del seed  # it takes none
    return _coded(faiss.ResidualQuantizer(train.shape[1], 6, 8), train, rows)


def product_quantizer(train: Rows, rows: Rows, seed: int) -> tuple[NDArray[np.int32], Rows]:
    """faiss' product quantizer, 48 x 256: 384 bits. What six times the bits would give."""
    import faiss

    quantizer = faiss.ProductQuantizer(train.shape[1], 48, 8)
    quantizer.cp.seed = seed
    return _coded(quantizer, train, rows)


def _coded(quantizer: Any, train: Rows, rows: Rows) -> tuple[NDArray[np.int32], Rows]:
    quantizer.train(train)
    codes = quantizer.compute_codes(rows)
    return codes.astype(np.int32), quantizer.decode(codes)


PEERS: Mapping[str, Peer] = {
    "residual k-means, 60 bits": residual_kmeans,
    "faiss RQ 6x256, 48 bits": residual_quantizer,
    "faiss PQ 48x256, 384 bits": product_quantizer,
}
