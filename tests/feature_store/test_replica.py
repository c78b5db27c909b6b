"""A replica named in the URL is read; who would write to it is told where to go."""

import pytest
import redis
from conftest_tools import until

from feature_store import FeatureStore, Status
from feature_store.doctor import examine
from feature_store.embedded import EmbeddedValkey
from feature_store.errors import UnavailableError
from feature_store.ops import error_of


def test_a_replica_is_read_and_the_doctor_names_its_primary() -> None:
    with EmbeddedValkey() as primary, FeatureStore.connect(primary.url) as store:
        store.write([1], [[1, 2, 3, 4, 5, 6]])
        options = {"replicaof": f"127.0.0.1 {primary.port}"}
        with (
            EmbeddedValkey(options=options) as replica,
            redis.Redis.from_url(replica.url) as client,
        ):
            until(lambda: client.info("replication")["master_link_status"] == "up")
            with FeatureStore.connect(replica.url) as reader:
                until(lambda: reader.lookup([1]).status.tolist() == [Status.HIT])
                warned = [found.what for found in examine(reader) if found.level == "warning"]
            assert any(f"a replica of 127.0.0.1:{primary.port}" in what for what in warned)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("READONLY You can't write against a read only replica.", "name its primary"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "when it has moved"),
        ("LOADING Valkey is loading the dataset in memory", "try again when it has"),
        ("CLUSTERDOWN Hash slot not served", "Try again shortly"),
    ],
)
def test_errors_that_pass_say_when(line: str, remedy: str) -> None:
    error = error_of(line, "127.0.0.1:1")
    assert isinstance(error, UnavailableError)
    assert line.rstrip(".") in str(error)
    assert remedy in str(error)
