"""Models from a hub, fetched only when asked to: safetensors, settings and vocabularies.

In: `ORG/NAME` or `ORG/NAME@REVISION`. Out: what its folder gives. Neither pickles nor code are
fetched. The hub client keeps what it has, so that a later run needs no network; its own variables
say which hub is asked (`HF_ENDPOINT`), where copies are kept (`HF_HOME`), and never to ask
(`HF_HUB_OFFLINE`).
"""

import re
from dataclasses import replace
from pathlib import Path

from export.errors import SourceError
from export.manifest import Source
from export.sources.families import open_source
from export.sources.folders import by_hand
from export.sources.source import ModelSource

_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_FETCHED = ("*.safetensors", "*.json", "*.txt", "*.model")
_SECONDS = 5.0  # for the first answer


def fetch(spec: str) -> Path:
    """The folder of a hub id, fetched unless this machine has it. Raises SourceError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    found = _ID.fullmatch(spec)
    if found is None:
        raise SourceError(f"--download: expected a hub id, ORG/NAME or ORG/NAME@REVISION: {spec}")
    name, revision = found.groups()
    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=list(_FETCHED), etag_timeout=_SECONDS
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SourceError(
            f"{spec} cannot be fetched: {reason} Check the name and the network, or fetch it "
            f"elsewhere {by_hand(name)}."
        ) from error
    return Path(folder)


def open_from_hub(spec: str, kind: str | None) -> ModelSource:
    """The model of a hub id, as `open_source` opens its folder. Raises SourceError."""
    opened = open_source(str(fetch(spec)), kind)
    return replace(opened, source=Source(name=spec, revision=opened.source.revision))
