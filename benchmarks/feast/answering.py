"""Runs in the peer's own environment: answers commands that come in, one JSON line each.

In, on stdin: `{"write": [ids .npy, values .npy]}` (n,) int64 and (n, 12) int32, or `{"read": ids}`.
Out, on stdout: `{"seconds", "cpu_s", "rows"}`; the time is that of the call alone, from a list of
ids to a numpy array (n, 12), -1 where an ad is not known. Arguments: the Redis port and a folder.
"""

import json
import sys
import time
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 12
BATCH = 2000


def opened(port: int, folder: Path) -> Any:
    """A Feast store with one view of 12 Int32 features, as its documentation lays it out."""
    from feast import (  # type: ignore[import-not-found]
        Entity,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
        ValueType,
    )
    from feast.types import Int32  # type: ignore[import-not-found]

    (folder / "feature_store.yaml").write_text(
        "project: peer\nprovider: local\nregistry: registry.db\n"
        "entity_key_serialization_version: 3\n"
        f"online_store:\n  type: redis\n  connection_string: localhost:{port}\n"
        "offline_store:\n  type: file\n"
    )
    store = FeatureStore(repo_path=str(folder))
    ad = Entity(name="ad", join_keys=["ad_id"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / "ads.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name=f"c{i}", dtype=Int32) for i in range(FEATURES)]
    view = FeatureView(
        name="codes", entities=[ad], ttl=timedelta(0), schema=schema, source=source, online=True
    )
    _columns(np.zeros(1, np.int64), np.zeros((1, FEATURES), np.int32)).to_parquet(
        folder / "ads.parquet"
    )
    store.apply([ad, view])
    return store


def _columns(ids: Any, values: Any) -> Any:
    import pandas as pd  # type: ignore[import-untyped]

    columns = {f"c{i}": values[:, i] for i in range(FEATURES)}
    return pd.DataFrame(
        {"ad_id": ids, **columns, "event_timestamp": datetime.now(tz=timezone.utc)}  # noqa: UP017
    )


def write(store: Any, ids: Any, values: Any) -> None:
    """Write everything, a batch at a time."""
    for at in range(0, len(ids), BATCH):
        frame = _columns(ids[at : at + BATCH], values[at : at + BATCH])
        store.write_to_online_store("codes", frame)


def read(store: Any, ids: list[int]) -> Any:
    """The 12 features of ids: (n, 12) int32, -1 where there are none."""
    found = store.get_online_features(
        features=[f"codes:c{i}" for i in range(FEATURES)],
        entity_rows=[{"ad_id": ad_id} for ad_id in ids],
    ).to_dict()
    columns = [found[f"c{i}"] for i in range(FEATURES)]
    rows = [[-1 if value is None else value for value in column] for column in columns]
    return np.asarray(rows, np.int32).T


def main(port: int, folder: Path) -> None:
    """Answer until stdin ends."""
    warnings.simplefilter("ignore")
    store = opened(port, folder)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        cpu, begun = time.process_time(), time.perf_counter()
        if "write" in asked:
            write(store, *(np.load(path) for path in asked["write"]))
            rows = None
        else:
            rows = read(store, asked["read"])
        taken, spent = time.perf_counter() - begun, time.process_time() - cpu
        answer = {"seconds": taken, "cpu_s": spent, "rows": None if rows is None else rows.tolist()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
