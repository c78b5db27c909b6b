"""Towers whose vectors are sums of words, and policies that route by them."""

import asyncio
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import Repository
from export.bundle import Bundle
from export.manifest import Manifest, Source
from feature_store.record import CATEGORIES
from serving.checks.policy_file import PolicyFile, Prototype, dump
from serving.encode.pipeline import IMAGE, SEMANTIC_ID, TEXT, Towers
from serving.encode.text import TextTokenizer
from serving.errors import UnavailableError
from serving.image import DecodedImage, Target

D = 512
RISKY = "casino"


def direction(word: str) -> NDArray[np.float32]:
    """The unit vector (D,) of one word."""
    drawn = np.random.default_rng(zlib.crc32(word.encode())).normal(size=D)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def vector_of(words: str) -> NDArray[np.float32]:
    """The unit vector (D,) of a text, whatever the order of its words."""
    total = sum((direction(word) for word in words.lower().split()), np.zeros(D, np.float32))
    return (total / max(1e-9, float(np.linalg.norm(total)))).astype(np.float32)


class WordTowers:
    """Looks like a `ServedEncoder`; knows no pictures."""

    def __init__(self, models: Path) -> None:
        tokenizer = TextTokenizer(Repository(models).open("checks").file("tokenizer.json"), 64)
        versions = {IMAGE: "1", TEXT: "1", SEMANTIC_ID: "1"}
        self.towers = Towers(tokenizer, Target(8, 8), D, versions)
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def target(self) -> Target:
        return self.towers.target

    async def embed(
        self,
        images: Sequence[DecodedImage | None],
        texts: Sequence[str | None],
        deadline: Any = None,
        /,
    ) -> tuple[NDArray[np.float32], Towers]:
        if self.away:
            raise UnavailableError("the towers are away")
        self.asked += len(texts)
        await self.gate.wait()
        rows = [vector_of(text or "") for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), D), self.towers


def add_towers(models: Path, scratch: Path, revision: str = "sha256:01") -> str:
    """Publish what names the towers; their revision as policies know it."""
    digest = hashlib.sha256()
    for name in (IMAGE, TEXT):
        folder = scratch / f"{name}-{revision[-2:]}"
        folder.mkdir()
        (folder / "note.txt").write_text(f"{name} {revision}")
        manifest = Manifest(name, name, "fp32", {}, Source("test", revision))
        Repository(models).publish(Bundle.draft(folder, manifest))
        digest.update(f"{name} {revision}\n".encode())
    return digest.hexdigest()[:12]


def probe(encoder: str, word: str = RISKY) -> dict[str, Any]:
    """A prototype that knows one word: sure of it when it is a third of the ad or more."""
    return {
        "encoder": encoder,
        "below": 0.05,
        "above": 0.95,
        "weights": Prototype.encode(30 * direction(word)),
        "bias": -12.0,
    }


def write_policy(folder: Path, name: str, **fields: Any) -> None:
    """A policy's file, whole or not there."""
    file = PolicyFile.model_validate({"id": name, "version": 1, **fields})
    draft = folder / f".{name}"
    draft.write_bytes(dump(file))
    draft.replace(folder / f"{name}.yaml")


def probes(encoder: str) -> dict[str, Any]:
    """Risk that is routed by one word for gambling, and by words nobody uses for the others."""
    words = {name: RISKY if name == "gambling" else f"unheard-of-{name}" for name in CATEGORIES}
    return {name: {"router": probe(encoder, word)} for name, word in words.items()}
