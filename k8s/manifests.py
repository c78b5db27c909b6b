"""Manifests as data: reading, rendering, and naming what they hold.

In: YAML files or an overlay's folder. Out: documents as dictionaries, in order. A key that stands
twice in one mapping is refused: YAML keeps the last one, silently.
"""

import shutil
import subprocess
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
OVERLAYS = FOLDER / "overlays"
RENDERED = FOLDER / "rendered"
Document = dict[str, Any]


class ManifestError(Exception):
    """A manifest that cannot be read or rendered."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it stands, and what to do about it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as Kubernetes reads it, without silently lost keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ManifestError(f"line {line}: key {key.value!r} stands twice; remove one")
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def parse(text: str, where: str) -> list[Document]:
    """Every non-empty document of a YAML text; ManifestError names the place."""
    try:
        found = [d for d in yaml.load_all(text, _Loader) if d is not None]
    except (yaml.YAMLError, ManifestError) as error:
        raise ManifestError(f"{where}: {error}") from error
    for document in found:
        if not isinstance(document, dict) or not {"apiVersion", "kind"} <= document.keys():
            raise ManifestError(f"{where}: expected objects with apiVersion and kind")
    return found


def read(path: Path) -> list[Document]:
    """Every document of a file."""
    try:
        return parse(path.read_text("utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path.name}: cannot be read ({error})") from error


def can_render() -> bool:
    """Whether this machine has kubectl, which carries Kustomize."""
    return shutil.which("kubectl") is not None


def render(overlay: Path) -> str:
    """What `kubectl apply -k overlay` would send, as YAML."""
    ran = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, timeout=60
    )
    if ran.returncode:
        raise ManifestError(f"kubectl kustomize {overlay.name}: {ran.stderr.strip()}")
    return ran.stdout


def title(document: Document) -> str:
    """`Kind/name`."""
    return f"{document['kind']}/{document.get('metadata', {}).get('name', '?')}"


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    """The documents of one kind, in order."""
    return [d for d in documents if d["kind"] == kind]


@dataclass(frozen=True, slots=True)
class Pods:
    """A pod template with who owns it; `replicas` is how many run at least."""

    owner: str
    template: Document
    replicas: int
    labels: Mapping[str, str]

    @property
    def spec(self) -> Document:
        spec: Document = self.template["spec"]
        return spec

    @property
    def is_ray(self) -> bool:
        return "ray.io/node-type" in self.labels


def pods(documents: list[Document]) -> Iterator[Pods]:
    """Every pod template, with the labels that its controller adds."""
    for document in of_kind(documents, "StatefulSet") + of_kind(documents, "Deployment"):
        template, replicas = document["spec"]["template"], document["spec"].get("replicas", 1)
        name = document["metadata"]["name"]
        labels = dict(template["metadata"].get("labels", {}))
        if document["kind"] == "StatefulSet":
            labels["statefulset.kubernetes.io/pod-name"] = f"{name}-0"
        yield Pods(title(document), template, replicas, labels)
    for document in of_kind(documents, "RayService"):
        cluster = document["spec"]["rayClusterConfig"]
        yield _ray(document, "head", cluster["headGroupSpec"]["template"], 1)
        for group in cluster.get("workerGroupSpecs", []):
            where = f"worker {group['groupName']}"
            yield _ray(document, where, group["template"], group["minReplicas"])


def _ray(document: Document, where: str, template: Document, replicas: int) -> Pods:
    labels = dict(template.get("metadata", {}).get("labels", {}))
    labels["ray.io/node-type"] = where.split()[0]
    return Pods(f"{title(document)} {where}", template, replicas, labels)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether `matchLabels` (an empty selector selects all) hold for a pod's labels."""
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return all(labels.get(name) == value for name, value in wanted.items())
