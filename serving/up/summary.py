"""The readable summary: counts, latencies, what is served where, and lines to try."""

from rich.console import Console
from rich.table import Table

from serving.config import Topology
from serving.up.stages import Outcome

SHOWN_PROBLEMS = 20


def show(outcome: Outcome, topology: Topology, *, keys: bool) -> None:
    """Print the summary on stdout; `keys`: callers need one."""
    console = Console()
    stages = Table("stage", "count", "seconds", "p50 ms", "p99 ms", title="What was done")
    for name, stage in outcome.stages.items():
        numbers = (stage.seconds, stage.p50_ms, stage.p99_ms)
        stages.add_row(name, f"{stage.count:,}", *(f"{number:,.2f}" for number in numbers))
    http, grpc = outcome.served["http"], outcome.served["grpc"]
    places = Table("application", "where", "version", title="What is served where")
    for app in topology.applications:
        version = outcome.versions.get(app.name, "")
        places.add_row(app.name, f"{http}{app.route_prefix}", version)
    places.add_row("gRPC", f"{grpc}, metadata application=<application>", "")
    places.add_row("metrics", str(outcome.served["metrics"]), "")
    places.add_row("logs", str(outcome.served["logs"]), "")
    console.print(stages, places)
    console.print(f"semantic-ID version: {outcome.versions.get('active', 'none')}", highlight=False)
    for note in outcome.notes:
        console.print(note, highlight=False)
    for source, reason in outcome.problems[:SHOWN_PROBLEMS]:
        console.print(f"refused {source}: {reason}", highlight=False, markup=False)
    if (more := len(outcome.problems) - SHOWN_PROBLEMS) > 0:
        console.print(f"... and {more} more")
    header = ' -H "authorization: Bearer $KEY"' if keys else ""
    json = ' -H "content-type: application/json"'
    console.print("\nTry:")
    for line in (
        f"curl -s {http}/v1/lookup{header}{json} -d '{{\"ad_ids\": [1, 2, 3]}}'",
        f'curl -s {http}/v1/encode/tokenize{header}{json} -d \'{{"texts": ["red shoes"]}}\'',
        f"curl -s {http}/v1/ads/900001 -X PUT{header} -F title='red shoes' -F text='on sale'",
    ):
        console.print("  " + line, highlight=False, markup=False, soft_wrap=True)
