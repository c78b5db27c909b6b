import json

import torch

from export import checks as checks_file
from export import shipped
from export.reference.checks.examples import text_examples
from export.reference.checks.judging import balanced, scores, summary
from export.reference.checks.run import CARD_FILE, SHIPPED_CHECKS, load_checks, maps
from export.reference.checks.training import Seen


def test_the_committed_model_is_small_and_fits_the_committed_image_tower() -> None:
    size = sum(file.stat().st_size for file in SHIPPED_CHECKS.iterdir())
    assert size <= 16_000_000
    found = checks_file.read(SHIPPED_CHECKS)
    assert found.encoder is not None
    assert found.encoder.revision == shipped.source("image_encoder").revision
    card = json.loads((SHIPPED_CHECKS / CARD_FILE).read_text("utf-8"))
    assert card["text"]["accuracy"] >= 0.9
    assert card["command"].startswith("python -m export.reference checks ")


def test_it_judges_unseen_words_as_its_card_says() -> None:
    model, packer, _ = load_checks(SHIPPED_CHECKS)
    unseen = [e for e in text_examples(300, 55_001) if e.ad.caption is None]
    asked = balanced(unseen, 15, seed=1)
    logits, mass = scores(model, packer, asked, Seen(unseen, torch.empty(0)), None)
    found = summary(asked, logits, mass, maps(checks_file.read(SHIPPED_CHECKS)))
    assert found["accuracy"] >= 0.9
    assert found["label_mass"] > 0.95
