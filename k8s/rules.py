"""Rules about pods that no schema states: what a drain, an intruder or a full disk would find.

In: the rendered documents of one overlay. Out: problems. Each function is one rule, named by what
it wants; `RULES` is the list that check.py runs.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from manifests import Document, Pods, Problem, of_kind, pods, selects, title

MINIMUM_GRACE_S = 60  # Ray drains for 30 s on SIGTERM and uses all of it
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
WRITABLE = ("/tmp/ray", "/tmp/haproxy-serve", "/dev/shm")
CLOSED_PORTS = (8404, 6379, 10001)  # HAProxy's statistics, Ray's GCS, Ray's client
OUR_SECRETS = {"tessera-api-keys", "tessera-store"}  # docs/operations.md says how to make them


def quantity(value: str | float) -> float:
    """A Kubernetes quantity as a number: `1500m` -> 1.5, `2Gi` -> 2147483648."""
    match = re.fullmatch(r"([0-9.]+)(m|k|M|G|Ki|Mi|Gi)?", str(value))
    if match is None:
        raise ValueError(f"quantity {value!r}: expected a number with m, k, M, G, Ki, Mi or Gi")
    number, unit = float(match[1]), match[2] or ""
    return number / 1000 if unit == "m" else number * UNITS[unit]


def containers_are_locked_down(documents: list[Document]) -> Iterator[Problem]:
    for pod in pods(documents):
        if not pod.spec.get("securityContext", {}).get("runAsNonRoot"):
            yield Problem(pod.owner, "securityContext.runAsNonRoot: true is missing")
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield Problem(pod.owner, "set automountServiceAccountToken: false; nothing uses it")
        for container in pod.spec["containers"]:
            where = f"{pod.owner} {container['name']}"
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False:
                yield Problem(where, "set securityContext.allowPrivilegeEscalation: false")
            if context.get("readOnlyRootFilesystem") is not True:
                yield Problem(where, "set securityContext.readOnlyRootFilesystem: true")
            if context.get("capabilities", {}).get("drop") != ["ALL"]:
                yield Problem(where, 'set securityContext.capabilities.drop: ["ALL"]')


def containers_say_what_they_need(documents: list[Document]) -> Iterator[Problem]:
    for pod in pods(documents):
        for container in pod.spec["containers"]:
            where = f"{pod.owner} {container['name']}"
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
                yield Problem(where, "resources.requests needs cpu and memory")
            if "memory" not in resources.get("limits", {}):
                yield Problem(where, "resources.limits needs memory")
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            if tag in ("", "latest"):
                yield Problem(where, f"image {container['image']!r} names no fixed version")


def containers_are_probed(documents: list[Document]) -> Iterator[Problem]:
    for pod in pods(documents):
        for container in pod.spec["containers"]:
            where = f"{pod.owner} {container['name']}"
            probe = container.get("readinessProbe")
            if probe is None:
                yield Problem(where, "has no readinessProbe")
            elif pod.is_ray and "httpGet" not in probe:
                yield Problem(where, "readinessProbe must be httpGet: a slim image has no wget")


def pods_get_time_to_drain(documents: list[Document]) -> Iterator[Problem]:
    for pod in pods(documents):
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace < MINIMUM_GRACE_S:
            what = f"terminationGracePeriodSeconds is {grace}; expected {MINIMUM_GRACE_S} or more"
            yield Problem(pod.owner, what)


def ray_has_room_to_write(documents: list[Document]) -> Iterator[Problem]:
    for pod in (p for p in pods(documents) if p.is_ray):
        volumes = {v["name"]: v for v in pod.spec.get("volumes", [])}
        mounts = pod.spec["containers"][0].get("volumeMounts", [])
        for path in WRITABLE:
            above = [m for m in mounts if f"{path}/".startswith(m["mountPath"].rstrip("/") + "/")]
            nearest = max(above, key=lambda m: len(m["mountPath"]), default=None)
            volume = volumes.get(nearest["name"], {}) if nearest else {}
            if "emptyDir" not in volume or (nearest and nearest.get("readOnly")):
                yield Problem(pod.owner, f"{path} needs a writable emptyDir: the root is read-only")
            elif path == "/dev/shm":
                yield from _shared_memory(pod, volume["emptyDir"], documents)


def _shared_memory(pod: Pods, volume: Document, documents: list[Document]) -> Iterator[Problem]:
    if volume.get("medium") != "Memory" or "sizeLimit" not in volume:
        yield Problem(pod.owner, "/dev/shm needs medium: Memory and a sizeLimit")
        return
    group = next(g for g in ray_groups(documents) if g["template"] is pod.template)
    store = group.get("rayStartParams", {}).get("object-store-memory")
    if store is None or int(store) > quantity(volume["sizeLimit"]):
        what = f"object-store-memory is {store}; expected at most /dev/shm's {volume['sizeLimit']}"
        yield Problem(pod.owner, what)


def ray_groups(documents: list[Document]) -> Iterator[Document]:
    """The head group and the worker groups of every RayService."""
    for document in of_kind(documents, "RayService"):
        cluster = document["spec"]["rayClusterConfig"]
        yield cluster["headGroupSpec"]
        yield from cluster.get("workerGroupSpecs", [])


def budgets_are_integers_that_allow_a_drain(documents: list[Document]) -> Iterator[Problem]:
    covered: set[str] = set()
    for document in of_kind(documents, "PodDisruptionBudget"):
        minimum = document["spec"].get("minAvailable")
        if not isinstance(minimum, int):
            yield Problem(title(document), f"minAvailable is {minimum!r}; expected an integer")
            continue
        chosen = [p for p in pods(documents) if selects(document["spec"]["selector"], p.labels)]
        covered |= {p.owner for p in chosen}
        running = sum(p.replicas for p in chosen)
        if minimum >= running:
            what = f"minAvailable {minimum} of {running} pods: no node could ever be drained"
            yield Problem(title(document), what)
    for pod in pods(documents):
        if pod.labels.get("ray.io/node-type") != "head" and pod.owner not in covered:
            yield Problem(pod.owner, "has no PodDisruptionBudget")


def policies_close_inner_ports(documents: list[Document]) -> Iterator[Problem]:
    policies = of_kind(documents, "NetworkPolicy")
    for pod in pods(documents):
        chosen = [p for p in policies if selects(p["spec"]["podSelector"], pod.labels)]
        types = {t for p in chosen for t in p["spec"].get("policyTypes", [])}
        if not {"Ingress", "Egress"} <= types:
            yield Problem(pod.owner, "no NetworkPolicy covers its ingress and egress")
        for policy in chosen if pod.is_ray else []:
            for rule in policy["spec"].get("ingress", []):
                yield from _open_ports(title(policy), rule)


def _open_ports(where: str, rule: Document) -> Iterator[Problem]:
    inner = all("podSelector" in s and "namespaceSelector" not in s for s in rule.get("from", []))
    if rule.get("from") and inner:  # pods of this very namespace, chosen by label
        return
    if not rule.get("from") or not rule.get("ports"):
        yield Problem(where, "a rule for outsiders must name who (`from`) and which `ports`")
    for port in rule.get("ports", []):
        first, last = port.get("port"), port.get("endPort", port.get("port"))
        if not isinstance(first, int):
            yield Problem(where, f"port {first!r}: give a number")
        elif closed := [p for p in CLOSED_PORTS if first <= p <= last]:
            yield Problem(where, f"opens {closed} to other namespaces; only Ray's pods need it")


def references_exist(documents: list[Document]) -> Iterator[Problem]:
    accounts = {d["metadata"]["name"] for d in of_kind(documents, "ServiceAccount")}
    maps = {d["metadata"]["name"] for d in of_kind(documents, "ConfigMap")}
    for document in of_kind(documents, "Secret"):
        yield Problem(title(document), "secret values are never committed; make it in the cluster")
    for pod in pods(documents):
        if pod.spec.get("serviceAccountName") not in accounts:
            yield Problem(pod.owner, "serviceAccountName names no ServiceAccount here")
        for kind, name in _named(pod.spec):
            if kind == "secret" and name not in OUR_SECRETS:
                yield Problem(pod.owner, f"Secret {name!r} is not one of {sorted(OUR_SECRETS)}")
            if kind == "map" and name not in maps:
                yield Problem(pod.owner, f"ConfigMap {name!r} is not among the manifests")
    for document in of_kind(documents, "Service"):
        selector = {"matchLabels": document["spec"].get("selector", {})}
        if not any(selects(selector, pod.labels) for pod in pods(documents)):
            yield Problem(title(document), "its selector chooses no pod")


def _named(spec: Any) -> Iterator[tuple[str, str]]:
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key == "secretKeyRef":
                yield "secret", value["name"]
            elif key == "secret" and "secretName" in value:
                yield "secret", value["secretName"]
            elif key in ("configMapKeyRef", "configMapRef", "configMap"):
                yield "map", value["name"]
            else:
                yield from _named(value)
    elif isinstance(spec, list):
        for item in spec:
            yield from _named(item)


def everything_lives_in_one_namespace(documents: list[Document]) -> Iterator[Problem]:
    spaces = {d["metadata"].get("namespace") for d in documents}
    if len(spaces) != 1 or None in spaces:
        yield Problem("overlay", f"expected one namespace on every object, found {spaces}")


RULES: tuple[Callable[[list[Document]], Iterator[Problem]], ...] = (
    containers_are_locked_down,
    containers_say_what_they_need,
    containers_are_probed,
    pods_get_time_to_drain,
    ray_has_room_to_write,
    budgets_are_integers_that_allow_a_drain,
    policies_close_inner_ports,
    references_exist,
    everything_lives_in_one_namespace,
)
