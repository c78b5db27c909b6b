"""The repository that this deployment opens bundles from, and the key that must have signed them.

In: settings. Out: a `Repository` that refuses what is unsigned, or signed by another key, wherever
a key is configured. Every part of serving opens bundles through it.
"""

from export.repository import Repository
from serving.config import Settings


def repository(settings: Settings) -> Repository:
    """The bundles of the settings.

    Opening one raises SignatureError unless `settings.models_public_key` signed it, if it is set.
    """
    return Repository(settings.models, public_key=settings.models_public_key)
