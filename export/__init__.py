"""From a trained checkpoint to an immutable, verified, versioned bundle that serving opens."""

from export.repository import Bundle, Repository

__all__ = ["Bundle", "Repository"]
