"""Checks every overlay without a cluster: `python k8s/check.py [--crd FILE]`.

Each overlay is rendered (where there is no kubectl, its committed rendering is read), compared
with the committed rendering and with serving/config.py, and checked against Kubernetes' schemas,
KubeRay's CRD (`--crd`), Ray Serve's own schema, and rules that no schema states. One line per file
and a summary; exit code 1 when something is wrong.
"""

import argparse
import sys
from pathlib import Path

import manifests
import yaml
from generate import OVERLAY_PROFILES, environment, serve_document
from manifests import Document, ManifestError, Problem
from ray_rules import RAY_RULES
from rules import RULES
from schemas import KUBERNETES, CustomResource, check_kubernetes, check_serve


def check(documents: list[Document], crd: CustomResource | None = None) -> list[Problem]:
    """Everything that is wrong with one overlay's documents; rules need schemas to hold first."""
    services = manifests.of_kind(documents, "RayService")
    if not services:
        return [Problem("overlay", "expected a RayService, found none")]
    found = [p for document in documents for p in check_kubernetes(document)]
    found += [p for s in services if crd is not None for p in crd.check(s)]
    for service in services:
        where = f"{manifests.title(service)} serveConfigV2"
        found += check_serve(service["spec"].get("serveConfigV2", ""), where)
    if found:
        return found
    return [p for rule in RULES + RAY_RULES for p in rule(documents)]


def check_source(documents: list[Document], overlay: str) -> list[Problem]:
    """The RayService says what serving/config.py says now, even where nothing can be rendered."""
    found = []
    for service in manifests.of_kind(documents, "RayService"):
        cluster, where = service["spec"]["rayClusterConfig"], manifests.title(service)
        if yaml.safe_load(service["spec"]["serveConfigV2"]) != serve_document(overlay):
            found.append(Problem(where, "serveConfigV2 differs from serving/config.py"))
        container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
        if container.get("env") != environment():
            found.append(Problem(where, "variables differ from serving/config.py"))
    return found


def check_overlay(overlay: str, crd: CustomResource | None) -> list[Problem]:
    """Prints a line per file and returns what is wrong."""
    committed = manifests.RENDERED / f"{overlay}.yaml"
    documents = manifests.read(committed)
    found = check(documents, crd) + check_source(documents, overlay)
    if manifests.can_render():
        folder = manifests.OVERLAYS / overlay
        fresh = manifests.parse(manifests.render(folder), f"overlays/{overlay}")
        if fresh != documents:
            found.append(Problem(f"rendered/{overlay}.yaml", "is not what overlays render to now"))
    count, state = len(documents), "ok" if not found else f"{len(found)} wrong"
    print(f"k8s/rendered/{overlay}.yaml: {count} objects, {state}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when all is right, 1 when not."""
    parser = argparse.ArgumentParser(prog="python k8s/check.py", description=__doc__)
    parser.add_argument("--crd", type=Path, help="KubeRay's CRD of RayService (a YAML file)")
    path: Path | None = parser.parse_args(arguments).crd
    try:
        crd = CustomResource(path) if path else None
        found = [p for overlay in OVERLAY_PROFILES for p in check_overlay(overlay, crd)]
    except ManifestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if found:
        print(
            "error: after a change of overlays or serving, run `python k8s/generate.py`",
            file=sys.stderr,
        )
    against = f"Kubernetes {KUBERNETES}, Ray Serve, " + (
        f"KubeRay ({path.name})" if path else "KubeRay's CRD not given (--crd)"
    )
    rendered = "rendered anew" if manifests.can_render() else "committed renderings (no kubectl)"
    print(f"{len(OVERLAY_PROFILES)} overlay(s), {rendered}; {against}: {len(found)} problem(s)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
