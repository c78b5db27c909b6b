"""Folders of drawn pictures that stand in for photos; a small tokenizer, learned once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from export.reference.catalogue import generate, jpeg
from export.reference.labels import CLOTHING
from export.semantic_id.learning import learn
from tests.export_reference.semantic_id_support import PLAN, Learned, threads, vectors


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


@pytest.fixture
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.fixture(scope="session")
def learned() -> Learned:
    """Of 3,000 rows; copy the model before changing it."""
    with threads(1):
        return learn(vectors(3000, seed=1), None, None, PLAN, lambda _: None)
