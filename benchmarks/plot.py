"""Pictures of figures, for people who would rather look: `--plot DIR`.

In: the results of a benchmark. Out: a PNG in the folder.
"""

from pathlib import Path
from typing import Any


def lookup(results: dict[str, Any], folder: Path) -> Path:
    """Latency over the number of ids, ours beside the peers, both axes logarithmic."""
    from matplotlib.figure import Figure

    sizes = list(results["sizes"])
    lines = {
        "Tessera lookup": [results["sizes"][n]["p50_us"]["lookup"] for n in sizes],
        "redis-py MGET + numpy": [results["sizes"][n]["p50_us"]["redis-py mget"] for n in sizes],
        "HMGET pipeline": [results["sizes"][n]["hash_pipeline_p50_us"] for n in sizes],
    }
    feast = results["feast"].get("sizes")
    if feast:
        lines["Feast, 12 Int32 features"] = [feast[n]["p50_us"]["feast"] for n in sizes]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in lines.items():
        axes.plot(sizes, [us / 1000 for us in values], marker="o", label=name)
    near = results["near_cache"]["all_hits_p50_us"] / 1000
    axes.plot([1000], [near], marker="*", markersize=12, linestyle="", label="near cache, all hits")
    axes.set(xscale="log", yscale="log", xlabel="ids per lookup", ylabel="p50, ms")
    axes.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    axes.set_title("One server on loopback, readers taking turns")
    return _save(figure, folder / "lookup.png")


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
