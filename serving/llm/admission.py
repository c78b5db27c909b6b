"""Admission by work: how many prompt tokens the engine will compute, not how many it is sent.

In: asks as they come and go. Out: admitted, or OverloadedError. Most of a prompt is the policy that
all ads share, which the engine computes once; counted by whole prompts, a queue of a thousand ads
would look like ten times the work it is. What is in the prefix cache is not known on this side of
the engine, so the blocks that were asked for of late stand for it: as many as the cache holds.
"""

from collections import OrderedDict

from serving.errors import OverloadedError
from serving.llm.asks import Ask


class Admission:
    """Tokens in the engine. Not thread-safe.

    waiting: asks at once. tokens: that are to be computed for them. block_size: tokens that are
    cached together. blocks: how many of them the cache holds; 0: there is none.
    """

    def __init__(self, waiting: int, tokens: int, block_size: int, blocks: int) -> None:
        self._waiting = waiting
        self._tokens = tokens
        self._block_size = block_size
        self._blocks = blocks
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._inside: dict[str, int] = {}  # name -> tokens to compute
        self.uncached = 0

    def admit(self, name: str, ask: Ask) -> None:
        """Count an ask in. Raises OverloadedError; one that comes alone is always let in."""
        if len(self._inside) >= self._waiting:
            raise OverloadedError(f"{self._waiting} asks are in the engine already")
        chain = self._chain(ask)
        known = 0
        for block in chain:
            if block not in self._recent:
                break
            known += 1
        need = max(1, len(ask.ids) - known * self._block_size)
        if self._inside and self.uncached + need > self._tokens:
            raise OverloadedError(
                f"{self.uncached:,} tokens wait to be computed, {need:,} more would be over "
                f"{self._tokens:,}; come back later"
            )
        for block in reversed(chain):  # as the cache does, ends are forgotten before beginnings
            self._recent[block] = None
            self._recent.move_to_end(block)
        while len(self._recent) > self._blocks:
            self._recent.popitem(last=False)
        self._inside[name] = need
        self.uncached += need

    def release(self, name: str) -> None:
        """Count an ask out, however it ended."""
        self.uncached -= self._inside.pop(name, 0)

    def __len__(self) -> int:
        return len(self._inside)

    def _chain(self, ask: Ask) -> list[int]:
        """A hash a full block, each of all that is before it too; images are part of theirs."""
        found: list[int] = []
        soft, first, after = b"", len(ask.ids), 0
        if ask.soft is not None and ask.soft_at is not None:
            soft, first, after = ask.soft.tobytes(), ask.soft_at, ask.soft_at + len(ask.soft)
        last = 0
        for at in range(0, len(ask.ids) - self._block_size + 1, self._block_size):
            end = at + self._block_size
            last = hash((last, ask.ids[at:end], soft if at < after and end > first else b""))
            found.append(last)
        return found
