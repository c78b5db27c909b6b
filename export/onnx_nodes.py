"""Steps between nodes of an ONNX graph that every search for a pattern takes."""

import onnx_ir as ir


def made_by(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that makes a value, if it is this operator."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operator else None


def only_user(value: ir.Value, operator: str) -> ir.Node | None:
    """The node that takes a value, if it is this operator and no other takes it."""
    users = [use.node for use in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == operator else None
