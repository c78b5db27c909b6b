"""The lookup application: ad ids in, semantic IDs, status and flags out; no model on this path."""
