"""Failures of the reference models: wrong arguments, or data that nothing can be learned from."""

from export.errors import ExportError


class ReferenceModelError(ExportError):
    """An argument or a data folder is not what the command expects; the message says what is."""
