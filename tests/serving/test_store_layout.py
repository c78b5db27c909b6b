"""The layout of the store's versions is a setting like any other."""

import pytest

from serving.config import Settings
from serving.errors import ConfigurationError
from serving.ingest.opening import open_indexer, open_store

CODES = [[1, 2, 3, 4, 5, 6]]


async def test_versions_begin_in_the_layout_that_is_configured(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_STORE_LAYOUT", "compact")
    monkeypatch.setenv("TESSERA_STORE_EXPECTED_ADS", "5e6")
    async with await open_store(Settings.load({"redis_url": valkey_url})) as store:
        await store.write([1], CODES)
        assert [version.layout for version in await store.versions()] == ["compact"]
    monkeypatch.delenv("TESSERA_STORE_LAYOUT")
    monkeypatch.delenv("TESSERA_STORE_EXPECTED_ADS")
    async with await open_store(Settings.load({"redis_url": valkey_url})) as store:
        await store.write([1], CODES, version="2")  # begins as the active one is
        assert {version.layout for version in await store.versions()} == {"compact"}


@pytest.mark.parametrize("settings", [{"store_layout": "compact"}, {"store_expected_ads": 1000}])
async def test_settings_that_do_not_fit_together_are_refused(
    valkey_url: str, settings: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match="expected_ads"):
        await open_indexer(Settings.load({"redis_url": valkey_url, **settings}))
    with pytest.raises(ConfigurationError, match="store_layout"):
        Settings.load({"store_layout": "small"})
