"""Folders of drawn pictures that stand in for photos."""

from pathlib import Path

import pytest

from export.reference.catalogue import generate, jpeg
from export.reference.labels import CLOTHING


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with about eight plain drawn creatives each."""
    root = tmp_path_factory.mktemp("photos")
    for creative in generate(260, seed=991):
        scene = creative.scene
        if scene.product in CLOTHING and not scene.props and not scene.flaws:
            folder = root / scene.product
            folder.mkdir(exist_ok=True)
            if len(list(folder.iterdir())) < 8:
                (folder / f"{creative.ad_id}.jpg").write_bytes(jpeg(creative.image))
    return root
