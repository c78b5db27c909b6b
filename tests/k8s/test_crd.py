"""The RayService against a CRD, as an API server would read it."""

import os
from pathlib import Path
from typing import Any

import manifests
import pytest
from schemas import CustomResource

SMALL = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rayservices.ray.io}
spec:
  group: ray.io
  names: {kind: RayService}
  versions:
    - name: v1
      served: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [size]
              properties:
                size: {type: integer, format: int32, default: 1}
                port: {x-kubernetes-int-or-string: true}
                note: {type: string, nullable: true}
                labels: {type: object, additionalProperties: {type: string}}
                open: {type: object, properties: {}, x-kubernetes-preserve-unknown-fields: true}
                env:
                  type: array
                  x-kubernetes-list-type: map
                  x-kubernetes-list-map-keys: [name]
                  items:
                    type: object
                    required: [name]
                    properties: {name: {type: string}, value: {type: string}}
"""
RIGHT: list[dict[str, Any]] = [
    {},
    {"size": 2, "port": 80, "note": None},
    {"port": "serve", "labels": {"a": "b"}, "open": {"any": [1]}},
    {"env": [{"name": "A"}, {"name": "B", "value": "1"}]},
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sise": 2}, "'sise' was unexpected"),
    ({"size": "2"}, "is not of type 'integer'"),
    ({"size": 2**31}, "out of range of int32"),
    ({"port": 1.5}, "is not valid under any of the given schemas"),
    ({"labels": {"a": 1}}, "is not of type 'string'"),
    ({"env": [{"value": "1"}]}, "'name' is a required property"),
    ({"env": [{"name": "A"}, {"name": "A"}]}, "two items with {'name': 'A'}"),
]


def small(tmp_path: Path) -> CustomResource:
    path = tmp_path / "crd.yaml"
    path.write_text(SMALL, "utf-8")
    return CustomResource(path)


def document(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "x"},
        "spec": spec,
    }


@pytest.mark.parametrize("spec", RIGHT)
def test_what_a_server_takes_is_right(spec: dict[str, Any], tmp_path: Path) -> None:
    assert small(tmp_path).check(document(spec)) == []


@pytest.mark.parametrize(("spec", "expected"), WRONG)
def test_what_a_server_refuses_or_drops_is_wrong(
    spec: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    found = small(tmp_path).check(document(spec))
    assert any(expected in str(problem) for problem in found)


@pytest.fixture(scope="module")
def crd() -> CustomResource:
    path = os.environ.get("KUBERAY_CRD")
    if not path:
        pytest.skip("KUBERAY_CRD names no file; KubeRay's release has it")
    return CustomResource(Path(path))


def test_the_dev_rayservice_is_what_kuberay_takes(
    crd: CustomResource, documents: list[dict[str, Any]]
) -> None:
    [service] = manifests.of_kind(documents, crd.kind)
    assert service["apiVersion"] == crd.api_version
    assert crd.check(service) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.rayClusterConfig.rayVerison", "2.60.0", "'rayVerison' was unexpected"),
        ("spec.rayClusterConfig.headGroupSpec.template.spec.container", [], "was unexpected"),
        ("spec.rayClusterConfig.authOptions.mode", "tokn", "is not one of"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.minReplicas", "2", "is not of type 'integer'"),
        ("spec.rayClusterConfig.headGroupSpec.rayStartParams.num-cpus", 0, "not of type 'string'"),
        ("spec.serveConfigV2", {"applications": []}, "is not of type 'string'"),
    ],
)
def test_kuberay_refuses_a_mistake(
    path: str, value: Any, expected: str, crd: CustomResource, documents: list[dict[str, Any]]
) -> None:
    [service] = manifests.of_kind(documents, crd.kind)
    *parents, last = path.split(".")
    place: Any = service
    for name in parents:
        place = place[int(name)] if name.isdigit() else place[name]
    place[last] = value
    assert any(expected in str(problem) for problem in crd.check(service))


def test_a_version_that_is_not_served_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "crd.yaml"
    path.write_text(SMALL.replace("served: true", "served: false"), "utf-8")
    with pytest.raises(manifests.ManifestError, match="serves v1"):
        CustomResource(path)
