"""The doctor among other programs' keys."""

from feature_store import FeatureStore
from feature_store.doctor import examine


def test_another_programs_keys_are_counted_not_stumbled_over(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url) as store:
        store.write([1], [[1, 2, 3, 4, 5, 6]])
        store.admin("SET", "ads:r0001{abc}", "short")
        store.admin("SET", "ads:r00zz{abc}12345678", "no number")
        store.admin("HSET", "ads:r0001{abc}12345678", "a", "hash")
        store.admin("SET", "ads:b000105{abc}abc", "no hash")
        store.admin("HSET", "ads:b00zz05{abc}abc", "a", "no record")
        findings = [finding for finding in examine(store) if finding.level == "error"]
        (finding,) = findings
        assert finding.what.startswith("5 of 6 records")
