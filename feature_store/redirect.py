"""Commands of one key each while a cluster's slots move: each goes on to where its key is now.

In: commands and the nodes that should have the keys. Out: their answers. MOVED and ASK are
followed, for all commands side by side (Redis cluster specification, "Redirection and resharding").
"""

from .ops import Answer, Call, Exchange, Node, Op
from .wire import RepliesReader, ServerReplyError, command

_ASKING = command("ASKING")
_HOPS = 6


def target(line: str, asked: Node) -> tuple[Node, bool] | None:
    """Where an error line sends its reader, and whether to say ASKING there; None: nowhere."""
    words = line.split(" ")
    if words[0] not in ("MOVED", "ASK") or len(words) < 3:
        return None
    host, _, port = words[2].rpartition(":")
    if not port.isdigit():
        return None
    return Node(host or asked.host, int(port)), words[0] == "ASK"


def each(asked: list[tuple[Node, bytes]], deadline: float) -> Op[list[Answer]]:
    """Send commands of one key; an answer each: a reply, an error line, or what stopped it."""
    answers: list[Answer] = [None] * len(asked)
    groups: dict[tuple[Node, bool], list[int]] = {}
    for i, (node, _) in enumerate(asked):
        groups.setdefault((node, False), []).append(i)
    for _ in range(_HOPS):
        readers = [
            RepliesReader(len(chosen) * (1 + asking)) for (_, asking), chosen in groups.items()
        ]
        calls = [
            Call(node, b"".join((_ASKING if asking else b"") + asked[i][1] for i in chosen), reader)
            for ((node, asking), chosen), reader in zip(groups.items(), readers, strict=True)
        ]
        outcomes = yield Exchange(calls, deadline)
        onward: dict[tuple[Node, bool], list[int]] = {}
        for ((node, asking), chosen), reader, outcome in zip(
            groups.items(), readers, outcomes, strict=True
        ):
            replies: list[Answer] = [outcome] * len(chosen)
            if outcome is None:
                replies = list(reader.replies[1::2] if asking else reader.replies)
            for i, reply in zip(chosen, replies, strict=True):
                answers[i] = reply
                there = target(reply, node) if isinstance(reply, ServerReplyError) else None
                if there is not None:
                    onward.setdefault(there, []).append(i)
        if not onward:
            break
        groups = onward
    return answers
