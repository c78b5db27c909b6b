"""Rules about the RayService that KubeRay's CRD cannot express, and about the code it names.

In: the rendered documents of one overlay. Out: problems. Sources: KubeRay 1.7's own validation
(ray-operator/controllers/ray/utils/validation.go) and Ray Serve 2.60's configuration.
"""

import ast
import importlib.util
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from manifests import Document, Problem, of_kind, title
from rules import quantity, ray_groups

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
_PASSWORD = re.compile(r"\w+://[^\s/]*:(?!\$\()[^\s/@]+@")


def groups_have_a_valid_size(documents: list[Document]) -> Iterator[Problem]:
    for document, cluster in _clusters(documents):
        if cluster["headGroupSpec"].get("rayStartParams", {}).get("num-cpus") != "0":
            yield Problem(title(document), 'head: rayStartParams.num-cpus must be "0"')
        metadata = cluster["headGroupSpec"]["template"].get("metadata", {})
        if metadata.get("annotations", {}).get(SAFE_TO_EVICT) != "false":
            yield Problem(title(document), f'head: annotation {SAFE_TO_EVICT}: "false" is missing')
        for group in cluster.get("workerGroupSpecs", []):
            low, high = group["minReplicas"], group["maxReplicas"]
            if not 1 <= low <= group.get("replicas", low) <= high:
                what = "expected 1 <= minReplicas <= replicas <= maxReplicas"
                yield Problem(f"{title(document)} {group['groupName']}", what)


def versions_and_modes_agree(documents: list[Document]) -> Iterator[Problem]:
    from importlib.metadata import version

    for document, cluster in _clusters(documents):
        if cluster.get("rayVersion") != version("ray"):
            found, expected = cluster.get("rayVersion"), version("ray")
            yield Problem(title(document), f"rayVersion {found}: the lock file has {expected}")
        if cluster.get("authOptions", {}).get("mode") != "token":
            yield Problem(title(document), "authOptions.mode must be token: Ray's ports are open")


def upgrades_are_possible(documents: list[Document]) -> Iterator[Problem]:
    for document, cluster in _clusters(documents):
        strategy = document["spec"].get("upgradeStrategy", {})
        if strategy.get("type") not in ("NewCluster", "None", "NewClusterWithIncrementalUpgrade"):
            yield Problem(title(document), f"upgradeStrategy.type {strategy.get('type')!r} unknown")
        if strategy.get("type") == "NewClusterWithIncrementalUpgrade":
            options = strategy.get("clusterUpgradeOptions", {})
            if options.get("stepSizePercent", 101) > options.get("maxSurgePercent", 100):
                yield Problem(title(document), "stepSizePercent must be at most maxSurgePercent")
            if not cluster.get("enableInTreeAutoscaling"):
                what = "an incremental upgrade needs enableInTreeAutoscaling: true"
                yield Problem(title(document), what)


def nodes_share_one_environment(documents: list[Document]) -> Iterator[Problem]:
    """Serve's variables count on every node, and differing ones fail in ways hard to see."""
    for document, _ in _clusters(documents):
        head, *workers = [g["template"]["spec"]["containers"][0] for g in ray_groups([document])]
        for worker in workers:
            if worker.get("env") != head.get("env"):
                what = f"env of {worker['name']} differs from the head's; generate both"
                yield Problem(title(document), what)
        names = [e["name"] for e in head.get("env", [])]
        for number, entry in enumerate(head.get("env", [])):
            for other in re.findall(r"\$\((\w+)\)", entry.get("value", "")):
                if other not in names[:number]:
                    what = f"env {entry['name']} uses $({other}), which must stand before it"
                    yield Problem(title(document), what)
            if _PASSWORD.search(entry.get("value", "")):
                what = f"env {entry['name']} holds a password; take it from a Secret"
                yield Problem(title(document), what)


def the_code_it_names_exists(documents: list[Document]) -> Iterator[Problem]:
    for document, config in _configs(documents):
        paths = [a["import_path"].replace(":", ".") for a in config["applications"]]
        for path in paths + config.get("grpc_options", {}).get("grpc_servicer_functions", []):
            if not _defines(*path.rpartition(".")[::2]):
                yield Problem(
                    title(document), f"serveConfigV2 names {path!r}, which does not exist"
                )


def _defines(module: str, name: str) -> bool:
    """Whether a module's source binds a name at its top level; nothing of it is executed."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    if spec is None or spec.origin is None:
        return False
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.Assign):
            names = {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.asname or alias.name for alias in node.names}
        else:
            names = {getattr(node, "name", "")}
        if name in names:
            return True
    return False


def serving_is_reachable_and_guarded(documents: list[Document]) -> Iterator[Problem]:
    for document, config in _configs(documents):
        wanted = {
            "serve": config["http_options"]["port"],
            "serve-grpc": config["grpc_options"]["port"],
        }
        if config["http_options"]["host"] != "0.0.0.0":
            yield Problem(title(document), "http_options.host must be 0.0.0.0 in a pod")
        if _PASSWORD.search(document["spec"]["serveConfigV2"]):
            yield Problem(title(document), "serveConfigV2 holds a password; use a Secret")
        for group in ray_groups([document]):
            container = group["template"]["spec"]["containers"][0]
            ports = {p.get("name"): p["containerPort"] for p in container.get("ports", [])}
            for name, port in wanted.items():
                if ports.get(name) != port:
                    what = f"{container['name']}: port {name!r} is {ports.get(name)}, not {port}"
                    yield Problem(title(document), what)
            names = {e["name"] for e in container.get("env", [])}
            if "TESSERA_API_KEYS_FILE" not in names:
                what = (
                    f"{container['name']} listens on all interfaces without TESSERA_API_KEYS_FILE"
                )
                yield Problem(title(document), what)


def replicas_fit_on_the_workers(documents: list[Document]) -> Iterator[Problem]:
    for document, config in _configs(documents):
        asked = sum(_cpus(d) for a in config["applications"] for d in a.get("deployments", []))
        there = 0.0
        for group in document["spec"]["rayClusterConfig"].get("workerGroupSpecs", []):
            limits = group["template"]["spec"]["containers"][0]["resources"].get("limits", {})
            there += group["minReplicas"] * math.ceil(quantity(limits.get("cpu", 0)))
        if asked > there:
            what = f"replicas ask for {asked:g} CPUs, the workers have {there:g}"
            yield Problem(title(document), f"{what}; add workers or lower num_cpus")


def _cpus(deployment: Document) -> float:
    count = deployment.get("autoscaling_config", {}).get(
        "min_replicas", deployment.get("num_replicas", 1)
    )
    return float(count * deployment.get("ray_actor_options", {}).get("num_cpus", 1))


def _clusters(documents: list[Document]) -> Iterator[tuple[Document, Document]]:
    for document in of_kind(documents, "RayService"):
        yield document, document["spec"]["rayClusterConfig"]


def _configs(documents: list[Document]) -> Iterator[tuple[Document, dict[str, Any]]]:
    for document in of_kind(documents, "RayService"):
        yield document, yaml.safe_load(document["spec"]["serveConfigV2"])


RAY_RULES: tuple[Callable[[list[Document]], Iterator[Problem]], ...] = (
    groups_have_a_valid_size,
    versions_and_modes_agree,
    upgrades_are_possible,
    nodes_share_one_environment,
    the_code_it_names_exists,
    serving_is_reachable_and_guarded,
    replicas_fit_on_the_workers,
)
