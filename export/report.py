"""What `inspect` prints of a bundle."""

from collections.abc import Iterable

from export.bundle import Bundle
from export.manifest import TensorSpec


def describe(bundle: Bundle) -> list[str]:
    """Lines of text: identity, tensors, sizes, parity."""
    manifest = bundle.manifest
    size = sum(entry.bytes for entry in manifest.files.values())
    lines = [
        f"{manifest.name} {manifest.version} ({manifest.kind}, {manifest.precision}), "
        f"{size / 1e6:.1f} MB, published {manifest.created or 'never'}",
        f"hash     {bundle.bundle_hash}",
        f"source   {manifest.source.name} {manifest.source.revision}",
        f"exporter {_pairs(manifest.exporter.items())}",
    ]
    for name, graph in manifest.graphs.items():
        lines.append(f"graph {name}: {graph.file}")
        lines += [f"  in   {_tensor(tensor)}" for tensor in graph.inputs]
        lines += [f"  out  {_tensor(tensor)}" for tensor in graph.outputs]
    for parity in manifest.parity:
        figures = [("max abs error", parity.max_abs_error), ("cosine", parity.cosine)]
        figures += [("rank", parity.rank_correlation), ("flips", parity.flip_rate)]
        shown = ", ".join(f"{name} {value:.9g}" for name, value in figures if value is not None)
        lines.append(f"parity {parity.graph}.{parity.output}: {parity.rows} rows, {shown}")
    for name, entry in manifest.files.items():
        lines.append(f"file {name}: {entry.bytes:,} bytes, sha256 {entry.sha256}")
    lines += [f"metadata {key}: {value}" for key, value in manifest.metadata.items()]
    return lines


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name}: {tensor.dtype} ({', '.join(str(size) for size in tensor.shape)})"


def _pairs(items: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{key} {value}" for key, value in items)
