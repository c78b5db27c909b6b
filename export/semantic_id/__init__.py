"""Semantic IDs: the tokenizer, how it is learned and how it is measured.

`from export.semantic_id.learning import Plan, learn`; `model`, `measures` and `report` beside it.
Nothing is imported here, so that naming the package stays cheap.
"""
