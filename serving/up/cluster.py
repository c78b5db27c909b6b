"""Ray, Serve and HAProxy as a context: everything deployed at once, and nothing left behind.

In: a topology and settings. Out: running applications; on leaving, every process that was
started is gone and every port is free.
"""

import importlib
import io
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from feature_store.ports import free_ports, free_range
from serving.config import (
    CHECKS,
    Topology,
    apply_environment,
    private_haproxy,
    private_replicas,
    ray_environment,
)
from serving.errors import MainJobError
from serving.up import signals
from serving.up.progress import step

DEPLOY_S = 300.0
STOP_S = 10.0
REPLICA_PORTS = 256  # one for HTTP and one for gRPC of each
OBJECT_STORE_BYTES = 256 << 20  # tensors travel through handles, large ones through here


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a running cluster answers."""

    http: str
    grpc: str
    metrics: str  # Prometheus text of every replica of this node
    logs: Path  # one JSON object a line, in the .err files of the workers


@contextmanager
def running(topology: Topology, settings: Mapping[str, Any], folder: Path) -> Iterator[Cluster]:
    """Start Ray in `folder`, deploy all applications at once, and stop it all at the end.

    `settings`: overrides for every application. Raises MainJobError when one does not start.
    """
    haproxy = folder / "h"
    haproxy.mkdir()
    *inner, metrics_port = free_ports(5)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    private = private_haproxy(haproxy, inner) | private_replicas(free_range(REPLICA_PORTS))
    apply_environment(ray_environment(topology.profile) | private | token)
    from ray.exceptions import RayError

    try:
        try:
            _start(topology, folder, metrics_port)
            _deploy(topology, settings)
        except (RayError, RuntimeError, TimeoutError) as error:
            raise MainJobError(f"Ray Serve did not start: {_last_line(str(error))}") from error
        yield Cluster(
            http=f"http://{_address(topology.host)}:{topology.port}",
            grpc=f"{_address(topology.host)}:{topology.grpc_port}",
            metrics=f"http://127.0.0.1:{metrics_port}/metrics",
            logs=folder / "session_latest" / "logs",
        )
    finally:
        with step("shutting down"):
            _stop(before, folder)


def _address(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - to call, not to bind


def _start(topology: Topology, folder: Path, metrics_port: int) -> None:
    with step("starting Ray"):
        import ray
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray.init(
            address="local",
            num_cpus=_cpus(topology),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
            _metrics_export_port=metrics_port,
        )
        signals.install()  # Ray has put its own handler in their place
        serve.start(
            http_options=topology.http_options,
            grpc_options=topology.grpc_options,
            logging_config=topology.logging_config,
        )


def _cpus(topology: Topology) -> int:
    """CPUs that the replicas ask for, rounded up; the real cores are shared by all of them."""
    asked = sum(
        values.num_cpus * values.num_replicas
        for app in topology.applications
        for values in app.deployments.values()
    )
    return max(2, int(asked) + 1)


def _deploy(topology: Topology, settings: Mapping[str, Any]) -> None:
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    targets = []
    for app in topology.applications:
        module, _, function = app.import_path.partition(":")
        build = getattr(importlib.import_module(module), function)
        target = build(app.args(settings, sized=True))
        targets.append(serve.RunTarget(target=target, name=app.name, route_prefix=app.route_prefix))
    # The engine starts beside all that follows; who needs it waits for it (`checking`).
    names = {app.name for app in topology.applications if app.name != CHECKS}
    with step("deploying applications", len(names)) as advance:
        serve.run_many(
            targets,
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        deadline, ready = time.monotonic() + DEPLOY_S, 0
        while ready < len(names):
            found = {n: s for n, s in serve.status().applications.items() if n in names}
            for name, status in found.items():
                if status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                    raise MainJobError(f"application {name}: {_reason(status)}")
            running = sum(s.status == ApplicationStatus.RUNNING for s in found.values())
            advance(running - ready)
            ready = running
            if time.monotonic() > deadline:
                late = [n for n, s in found.items() if s.status != ApplicationStatus.RUNNING]
                raise MainJobError(f"not running after {DEPLOY_S:.0f} s: {', '.join(late)}")
            time.sleep(0.1)


def failure(name: str) -> str | None:
    """Why an application could not be deployed; None while it may still come up."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    status = serve.status().applications.get(name)
    if status is None or status.status != ApplicationStatus.DEPLOY_FAILED:
        return None
    return _reason(status)


def _reason(status: Any) -> str:
    """The last line of what Serve says of an application that failed."""
    said = [status.message, *(d.message for d in status.deployments.values())]
    return _last_line("\n".join(said)) or str(status.status)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _stop(before: set[int], folder: Path) -> None:
    import ray
    from ray import serve

    started = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    if ray.is_initialized():
        with redirect_stdout(io.StringIO()):  # Ray prints that the controller it ends has ended
            try:
                serve.shutdown()  # type: ignore[no-untyped-call]
            finally:
                ray.shutdown()
    ours = {process.pid: process for process in (*started, *_of_folder(folder))}
    _, left = psutil.wait_procs(list(ours.values()), timeout=STOP_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=STOP_S)


def _of_folder(folder: Path) -> list[psutil.Process]:
    """Processes of this cluster wherever they were re-parented: their command names its folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in argument for argument in process.info["cmdline"] or ())
    ]
