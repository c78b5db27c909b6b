"""A manifest that is right passes; one that is broken in any way is refused, by name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check
import generate
import manifests
import pytest
import yaml

Documents = list[dict[str, Any]]
CHECK = [sys.executable, str(manifests.FOLDER / "check.py")]


def one(documents: Documents, kind: str, name: str = "tessera") -> dict[str, Any]:
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)


def cluster(documents: Documents) -> dict[str, Any]:
    return one(documents, "RayService")["spec"]["rayClusterConfig"]


def worker(documents: Documents) -> dict[str, Any]:
    return cluster(documents)["workerGroupSpecs"][0]


def container(documents: Documents) -> dict[str, Any]:
    return worker(documents)["template"]["spec"]["containers"][0]


def store(documents: Documents) -> dict[str, Any]:
    return one(documents, "StatefulSet", "tessera-store")["spec"]


def policy(documents: Documents) -> dict[str, Any]:
    return one(documents, "NetworkPolicy", "tessera-serving")["spec"]


def change_serve(documents: Documents, change: Callable[[dict[str, Any]], Any]) -> None:
    spec = one(documents, "RayService")["spec"]
    config = yaml.safe_load(spec["serveConfigV2"])
    change(config)
    spec["serveConfigV2"] = yaml.safe_dump(config)


BROKEN: dict[str, tuple[Callable[[Documents], Any], str]] = {
    "unknown field": (lambda d: store(d).update(replica=3), "replica"),
    "wrong type": (lambda d: store(d).update(replicas="two"), "is not of type"),
    "missing field": (lambda d: store(d).pop("selector"), "'selector' is a required property"),
    "unknown kind": (lambda d: one(d, "Service", "tessera-store").update(kind="Servce"), "unknown"),
    "old api": (lambda d: store(d) and d[-2].update(apiVersion="policy/v1beta1"), "unknown"),
    "pod field in RayService": (
        lambda d: worker(d)["template"]["spec"].update(terminationGraceSeconds=9),
        "terminationGraceSeconds",
    ),
    "no RayService": (lambda d: d.remove(one(d, "RayService")), "expected a RayService"),
    "serve: unknown field": (
        lambda d: change_serve(d, lambda c: c["applications"][0].update(num_replica=1)),
        "ignores the unknown field 'num_replica'",
    ),
    "serve: same prefix twice": (
        lambda d: change_serve(d, lambda c: c["applications"][0].update(route_prefix="/v2")),
        "Serve refuses it",
    ),
    "serve: no such module": (
        lambda d: change_serve(
            d, lambda c: c["applications"][0].update(import_path="serving.no:b")
        ),
        "names 'serving.no.b'",
    ),
    "serve: no such function": (
        lambda d: change_serve(
            d, lambda c: c["applications"][0].update(import_path="serving.config:buidl")
        ),
        "names 'serving.config.buidl'",
    ),
    "serve: loopback in a pod": (
        lambda d: change_serve(d, lambda c: c["http_options"].update(host="127.0.0.1")),
        "must be 0.0.0.0",
    ),
    "serve: another port": (
        lambda d: change_serve(d, lambda c: c["http_options"].update(port=8123)),
        "'serve' is 8000, not 8123",
    ),
    "serve: too many replicas": (
        lambda d: change_serve(
            d, lambda c: c["applications"][0]["deployments"][0].update(num_replicas=99)
        ),
        "CPUs, the workers have 4",
    ),
    "more at least than at most": (
        lambda d: worker(d).update(minReplicas=3),
        "minReplicas <= replicas",
    ),
    "replicas on the head": (
        lambda d: cluster(d)["headGroupSpec"]["rayStartParams"].pop("num-cpus"),
        'num-cpus must be "0"',
    ),
    "head may be evicted": (
        lambda d: cluster(d)["headGroupSpec"]["template"]["metadata"].pop("annotations"),
        "safe-to-evict",
    ),
    "no probe": (lambda d: container(d).pop("readinessProbe"), "no readinessProbe"),
    "probe by wget": (
        lambda d: container(d).update(readinessProbe={"exec": {"command": ["wget", "x"]}}),
        "must be httpGet",
    ),
    "short grace": (
        lambda d: worker(d)["template"]["spec"].update(terminationGracePeriodSeconds=30),
        "terminationGracePeriodSeconds is 30",
    ),
    "root": (
        lambda d: worker(d)["template"]["spec"]["securityContext"].pop("runAsNonRoot"),
        "runAsNonRoot",
    ),
    "privilege escalation": (
        lambda d: container(d)["securityContext"].pop("allowPrivilegeEscalation"),
        "allowPrivilegeEscalation",
    ),
    "writable root": (
        lambda d: container(d)["securityContext"].update(readOnlyRootFilesystem=False),
        "readOnlyRootFilesystem",
    ),
    "capabilities": (
        lambda d: container(d)["securityContext"].pop("capabilities"),
        "capabilities.drop",
    ),
    "no room for Ray": (
        lambda d: container(d)["volumeMounts"].remove(
            next(m for m in container(d)["volumeMounts"] if m["mountPath"] == "/tmp")
        ),
        "/tmp/haproxy-serve needs a writable emptyDir",
    ),
    "small shared memory": (
        lambda d: worker(d)["rayStartParams"].update({"object-store-memory": "9999999999"}),
        "expected at most /dev/shm's 1Gi",
    ),
    "no limits": (lambda d: container(d)["resources"].pop("limits"), "limits needs memory"),
    "floating image": (lambda d: container(d).update(image="tessera:latest"), "no fixed version"),
    "budget in percent": (
        lambda d: one(d, "PodDisruptionBudget", "tessera-workers")["spec"].update(
            minAvailable="50%"
        ),
        "expected an integer",
    ),
    "budget that forbids drains": (
        lambda d: one(d, "PodDisruptionBudget", "tessera-store")["spec"].update(minAvailable=2),
        "no node could ever be drained",
    ),
    "no budget": (
        lambda d: d.remove(one(d, "PodDisruptionBudget", "tessera-workers")),
        "has no PodDisruptionBudget",
    ),
    "no network policy": (
        lambda d: d.remove(one(d, "NetworkPolicy", "tessera-store")),
        "no NetworkPolicy covers",
    ),
    "statistics page open": (
        lambda d: policy(d)["ingress"][3]["ports"].append({"port": 8404}),
        "opens [8404]",
    ),
    "statistics page in a range": (
        lambda d: policy(d)["ingress"][1]["ports"].append({"port": 8000, "endPort": 9999}),
        "opens [8404]",
    ),
    "open to everyone": (lambda d: policy(d)["ingress"].append({}), "must name who"),
    "secret committed": (
        lambda d: d.append(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "tessera-store", "namespace": "tessera"},
                "stringData": {"password": "hunter2"},
            }
        ),
        "secret values are never committed",
    ),
    "password in a variable": (
        lambda d: [
            c["template"]["spec"]["containers"][0]["env"].append(
                {"name": "TESSERA_REDIS_URL", "value": "redis://:hunter2@store:6379"}
            )
            for c in (cluster(d)["headGroupSpec"], worker(d))
        ],
        "holds a password",
    ),
    "unknown secret": (
        lambda d: store(d)["template"]["spec"]["containers"][0]["env"][2]["valueFrom"][
            "secretKeyRef"
        ].update(name="other"),
        "Secret 'other' is not one of",
    ),
    "unknown config map": (
        lambda d: store(d)["template"]["spec"]["volumes"][0]["configMap"].update(name="other"),
        "ConfigMap 'other' is not among",
    ),
    "service for nobody": (
        lambda d: one(d, "Service", "tessera-store")["spec"].update(selector={"app": "other"}),
        "its selector chooses no pod",
    ),
    "variables differ": (lambda d: container(d)["env"].pop(0), "differs from the head's"),
    "variable before its password": (
        lambda d: [
            c["template"]["spec"]["containers"][0]["env"].reverse()
            for c in (cluster(d)["headGroupSpec"], worker(d))
        ],
        "must stand before it",
    ),
    "no keys": (
        lambda d: [
            c["template"]["spec"]["containers"][0].update(
                env=[
                    e
                    for e in c["template"]["spec"]["containers"][0]["env"]
                    if e["name"] != "TESSERA_API_KEYS_FILE"
                ]
            )
            for c in (cluster(d)["headGroupSpec"], worker(d))
        ],
        "without TESSERA_API_KEYS_FILE",
    ),
    "another Ray": (lambda d: cluster(d).update(rayVersion="2.9.0"), "the lock file has"),
    "no token": (lambda d: cluster(d).pop("authOptions"), "authOptions.mode must be token"),
    "step above surge": (
        lambda d: one(d, "RayService")["spec"].update(
            upgradeStrategy={
                "type": "NewClusterWithIncrementalUpgrade",
                "clusterUpgradeOptions": {"stepSizePercent": 60, "maxSurgePercent": 50},
            }
        ),
        "stepSizePercent must be at most",
    ),
    "another namespace": (
        lambda d: d[0]["metadata"].update(namespace="default"),
        "one namespace on every object",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_refused(name: str, documents: Documents) -> None:
    mutate, expected = BROKEN[name]
    mutate(documents)
    assert any(expected in str(problem) for problem in check.check(documents))


def test_the_dev_overlay_is_right(documents: Documents) -> None:
    assert check.check(documents) == []
    assert check.check_source(documents, "dev") == []


def test_a_rendering_of_another_configuration_is_refused(documents: Documents) -> None:
    change_serve(documents, lambda c: c["applications"].pop())
    cluster(documents)["headGroupSpec"]["template"]["spec"]["containers"][0]["env"].pop()
    found = [str(p) for p in check.check_source(documents, "dev")]
    assert len(found) == 2
    assert all("serving/config.py" in problem for problem in found)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(manifests.ManifestError, match="line 3: key 'kind' stands twice"):
        manifests.parse("apiVersion: v1\nkind: A\nkind: B\n", "x.yaml")


def test_the_command_line(tmp_path: Path) -> None:
    right = subprocess.run(CHECK, capture_output=True, text=True, timeout=120)
    assert right.returncode == 0, right.stdout + right.stderr
    assert "k8s/rendered/dev.yaml: " in right.stdout
    assert right.stdout.splitlines()[-1].endswith("0 problem(s)")
    other = tmp_path / "not-a-crd.yaml"
    other.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", "utf-8")
    wrong = subprocess.run(
        [*CHECK, "--crd", str(other)], capture_output=True, text=True, timeout=60
    )
    assert wrong.returncode == 1
    assert "expected one CRD that serves v1" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.skipif(not manifests.can_render(), reason="kubectl is not on this machine")
def test_an_edited_overlay_makes_the_rendering_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (manifests.RENDERED / "dev.yaml").read_text("utf-8")
    (tmp_path / "dev.yaml").write_text(text.replace("maxmemory 1gb", "maxmemory 2gb"), "utf-8")
    monkeypatch.setattr(manifests, "RENDERED", tmp_path)
    assert check.main([]) == 1
    assert "is not what overlays render to" in capsys.readouterr().err


def test_every_overlay_is_generated_checked_and_committed() -> None:
    assert {p.name for p in manifests.OVERLAYS.iterdir()} == set(generate.OVERLAY_PROFILES)
    assert {p.stem for p in manifests.RENDERED.iterdir()} == set(generate.OVERLAY_PROFILES)
