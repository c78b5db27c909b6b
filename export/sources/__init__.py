"""Readers of trained models: one file a family, all giving a `ModelSource`."""
