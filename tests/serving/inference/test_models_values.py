"""Values that stand for nothing are refused where the manifest can know."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import Bundle, Repository
from export.manifest import Manifest, Source
from serving.batcher import Limits
from serving.errors import InvalidRequestError, RefusedInputsError
from serving.models.servable import Servable
from serving.models.values import Values
from serving.session import Runtime
from serving.waiting import Ticket
from tests.serving.inference.bundles import MAKERS

METADATA = {
    "text_encoder": {"tokenizer": {"file": "tokenizer.json", "max_length": 4}},
    "semantic_id": {"sizes": [16, 16, 16, 16, 16, 8]},
}


@pytest.fixture
async def servable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Servable]:
    """A bundle of that name, with metadata as the exporters write them."""
    name, repository = request.param, Repository(tmp_path)
    with repository.staging(name) as folder:
        graphs = MAKERS[name](folder)
        manifest = Manifest(name, name, "fp32", graphs, Source("onnx.helper", "0" * 64))
        manifest = replace(manifest, metadata=METADATA[name])
        bundle = repository.publish(Bundle.draft(folder, manifest))
    opened = Servable(bundle, Runtime("cpu", 1), Limits(4, 64, 64, 1 << 20))
    yield opened
    await opened.close()


def text(*tokens: int) -> dict[str, np.ndarray]:
    ids = np.array([tokens], np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.mark.parametrize("servable", ["text_encoder"], indirect=True)
async def test_tokens(servable: Servable) -> None:
    assert (await servable.infer(text(0, 5, 1, 2, 3), None, Ticket())).rows == 1
    with pytest.raises(InvalidRequestError, match="expected tokens from 0 on, found -1"):
        await servable.infer(text(1, -1), None, Ticket())
    with pytest.raises(RefusedInputsError) as long:  # what the runtime says, and what may be why
        await servable.infer(text(0, 1, 2, 3, 99), None, Ticket())
    assert "at most 4 tokens, these 5: the model could not compute" in str(long.value)
    with pytest.raises(RefusedInputsError, match=r"^the model could not compute"):
        await servable.infer(text(99), None, Ticket())


@pytest.mark.parametrize("servable", ["semantic_id"], indirect=True)
async def test_codes(servable: Servable) -> None:
    codes = np.array([[0, 0, 0, 0, 0, 0], [15, 15, 15, 15, 15, 7]], np.int32)
    assert (await servable.infer({"codes": codes}, "decode", Ticket())).rows == 2
    for row, column, value in ((0, 0, -1), (1, 0, 16), (1, 5, 8)):
        wrong = codes.copy()
        wrong[row, column] = value
        place = f"row {row}, column {column}: expected 0 to .*, found {value}"
        with pytest.raises(InvalidRequestError, match=place):
            await servable.infer({"codes": wrong}, "decode", Ticket())


def test_nothing_is_known_of_others(bundles: Repository) -> None:
    for name in MAKERS:
        manifest = bundles.open(name).manifest
        assert all(Values.of(manifest, graph) == Values() for graph in manifest.graphs)
