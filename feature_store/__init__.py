"""What ranking services read: per-ad semantic IDs and flags in Redis or Valkey."""

from .async_store import AsyncFeatureStore
from .errors import FeatureStoreError
from .lookup import Found
from .marks import BlockResult
from .record import Flag, Status
from .store import FeatureStore
from .versions import Version
from .write import WriteResult

__all__ = [
    "AsyncFeatureStore",
    "BlockResult",
    "FeatureStore",
    "FeatureStoreError",
    "Flag",
    "Found",
    "Status",
    "Version",
    "WriteResult",
]
