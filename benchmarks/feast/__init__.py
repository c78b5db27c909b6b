"""Feast's Redis online store as a peer of lookups, in an environment and a process of its own."""
