"""Every way in which exporting, publishing or opening a bundle can fail."""

from collections.abc import Iterable


class ExportError(Exception):
    """Base of all errors of this package."""


class ManifestError(ExportError):
    """A manifest is malformed, incomplete, or written by a newer release."""


class IntegrityError(ExportError):
    """A bundle's folder is not what its manifest says: it must not be loaded."""


class SignatureError(IntegrityError):
    """A signature is missing where one is required, or does not fit the manifest."""


class NotFoundError(ExportError):
    """The repository, the name or the version does not exist."""


class RepositoryError(ExportError):
    """A repository cannot be written, or cannot do what was asked."""


class SourceError(ExportError):
    """What was handed over for export cannot be read, or is of no known family."""


class GraphError(ExportError):
    """An exported graph does not load, or is not dynamic where it has to be."""


class ParityError(ExportError):
    """The artefact does not compute what its source computes: no bundle was written.

    Attributes:
        report: one line for each figure that was measured.
    """

    def __init__(self, failures: Iterable[str], report: Iterable[str]) -> None:
        self.report = tuple(report)
        lines = "\n  ".join((*failures, "measured:", *self.report))
        super().__init__(f"parity below the bar, nothing was published:\n  {lines}")


class MissingExtraError(ExportError):
    """A command needs packages that only an extra installs."""

    def __init__(self, package: str, extra: str = "export,cpu") -> None:
        super().__init__(
            f"this needs {package}: install the extra (pip install 'tessera[{extra}]')"
        )
