"""What reducing a graph's numbers did to it, as its manifest tells.

In: nothing. Out: a record that every way of reducing answers with.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reduced:
    """What was done to a graph. method: `fp16`, `dynamic` or `calibrated`; kept: nodes in fp32."""

    method: str
    kept: int = 0
    nodes: int = 0
