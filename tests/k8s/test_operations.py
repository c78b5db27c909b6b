"""What docs/operations.md tells people to run or to look at is so."""

import re
import subprocess
from pathlib import Path
from typing import Any

import manifests
import pytest

from serving.auth import read_keys

TEXT = (manifests.FOLDER.parent / "docs" / "operations.md").read_text("utf-8")


def test_its_key_file_is_one_that_serving_reads(tmp_path: Path) -> None:
    [block] = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    subprocess.run(["bash", "-euc", block], cwd=tmp_path, check=True, timeout=30)
    [key] = read_keys(tmp_path / "keys.jsonl")
    assert (key.name, key.scopes) == ("ranking", frozenset({"read"}))


def test_every_object_it_names_exists(documents: list[dict[str, Any]]) -> None:
    kinds = {d["kind"] for d in documents}
    named = [n for n in re.findall(r"`([A-Z]\w+)/([\w*-]+)`", TEXT) if n[0] in kinds]
    assert len(named) >= 6
    there = {(d["kind"], d["metadata"]["name"]) for d in documents}
    [service] = manifests.of_kind(documents, "RayService")
    there.add(("Service", service["spec"]["serveService"]["metadata"]["name"]))  # KubeRay makes it
    assert [n for n in named if n[1] != "*" and n not in there] == []


@pytest.mark.parametrize("label", ["tessera.io/clients", "tessera.io/metrics"])
def test_labels_it_asks_for_are_the_policies(label: str, documents: list[dict[str, Any]]) -> None:
    assert label in TEXT
    policies = manifests.of_kind(documents, "NetworkPolicy")
    assert any(label in str(p["spec"]["ingress"]) for p in policies)
