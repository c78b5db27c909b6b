"""Every failure that the feature store raises, under one base class.

In: nothing. Out: exceptions whose messages say what was tried, what was found and what to do.
Lookups raise only for wrong arguments; a fault of the data plane is a row's UNAVAILABLE.
"""


class FeatureStoreError(Exception):
    """Base of everything that this package raises."""


class InputError(FeatureStoreError, ValueError):
    """An argument has the wrong type, shape or range."""


class AddressError(FeatureStoreError, ValueError):
    """A URL names no kind of server that is known, or cannot be read."""


class UnavailableError(FeatureStoreError):
    """A server did not answer in time, refused the connection, or closed it."""


class AccessError(FeatureStoreError):
    """The server refused the password, or the user may not do what was asked."""


class ServerError(FeatureStoreError):
    """The server answered with an error that the store does not expect."""


class ProtocolError(FeatureStoreError):
    """The server's bytes are not the RESP reply that was asked for."""


class UnknownVersionError(FeatureStoreError, LookupError):
    """No version of that name is kept in the store."""


class CoverageError(FeatureStoreError):
    """A version holds too few of the active version's ids to be activated."""


class VersionInUseError(FeatureStoreError):
    """The active version, or the one that a rollback needs, cannot be retired."""


class LayoutError(FeatureStoreError):
    """A version was begun with another layout than this store was opened with."""


class ConflictError(FeatureStoreError):
    """Others changed the versions again and again while this change was tried."""


class MissingExtraError(FeatureStoreError, ImportError):
    """An optional package is needed and not installed."""
