"""What others quantize with, in the same run: residual k-means of equal sizes, faiss RQ and PQ.

In: training rows (m, D), all rows (n, D), sizes, a seed. Out: codes (n, levels) and reconstructed
rows (n, D), or None where a method does not fit this D.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Sizes = tuple[int, ...]
Quantized = tuple[NDArray[np.int32], Rows]
Peer = Callable[[Rows, Rows, Sizes, int], Quantized | None]
_PARTS = 48  # of the product quantizer


def residual_kmeans(train: Rows, rows: Rows, sizes: Sizes, seed: int) -> Quantized:
    """One chain of k-means on what is left, of the sizes of the semantic IDs."""
    import faiss

    left, rest, codes = train, rows, []
    for size in sizes:
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


def residual_quantizer(train: Rows, rows: Rows, sizes: Sizes, seed: int) -> Quantized:
    """faiss' residual quantizer with its beam, 6 x 256: 48 bits."""
    import faiss

    del sizes, seed  # it takes none
    return _coded(faiss.ResidualQuantizer(train.shape[1], 6, 8), train, rows)


def product_quantizer(train: Rows, rows: Rows, sizes: Sizes, seed: int) -> Quantized | None:
    """faiss' product quantizer, 48 x 256: 384 bits. What six times the bits would give."""
    import faiss

    del sizes  # always the same, as a fixed point to compare with
    if train.shape[1] % _PARTS:
        return None
    quantizer = faiss.ProductQuantizer(train.shape[1], _PARTS, 8)
    quantizer.cp.seed = seed
    return _coded(quantizer, train, rows)


def _coded(quantizer: Any, train: Rows, rows: Rows) -> Quantized:
    quantizer.cp.min_points_per_centroid = 1  # fewer is our doing; no warning for each part
    quantizer.train(train)
    codes = quantizer.compute_codes(rows)
    return codes.astype(np.int32), quantizer.decode(codes)


PEERS: Mapping[str, Peer] = {
    "residual k-means, equal sizes": residual_kmeans,
    "faiss RQ 6x256, 48 bits": residual_quantizer,
    "faiss PQ 48x256, 384 bits": product_quantizer,
}
