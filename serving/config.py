"""All configuration of all packages; the only module that reads the environment.

In: `TESSERA_*` variables, overrides from an application's `args`, and the values of a profile
(`development.toml`, `production.toml`). Out: frozen typed `Settings`, the `Topology` of Serve
applications, the Serve configuration made of it (`serve_config`, what a RayService carries), and
the variables that must be set before Ray starts (`ray_environment`).
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from serving.errors import ConfigurationError
from serving.sizes import DeploymentValues, LlmValues

PREFIX = "TESSERA_"
REFERENCE_MODELS = ("image_encoder", "text_encoder", "semantic_id")
CHECKS = "checks"  # the application that judges ads, and the bundle of its language model
GRPC_SERVICERS = (
    "serving.lookup.lookup_pb2_grpc.add_LookupServicer_to_server",
    "tritonclient.grpc.service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server",
)
Profile = Literal["development", "production"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExtraKey(_Frozen):
    """A key of the process that started the application, beside those of the key file."""

    name: str
    key_sha256: str
    scopes: tuple[str, ...]


class Settings(_Frozen):
    """What every application is told; each field is `TESSERA_<FIELD>` in the environment."""

    redis_url: str = Field("redis://127.0.0.1:6379", repr=False)  # may hold a password
    namespace: str = "ads"
    models: Path = Path("var/models")
    models_public_key: Path | None = None  # file of the Ed25519 key that must have signed bundles
    policies: Path | None = None  # folder of the checks' policies; None: those of the package
    api_keys_file: Path | None = None
    extra_keys: tuple[ExtraKey, ...] = ()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    near_cache_bytes: int = Field(64 << 20, ge=0)
    # Of versions that begin; None: as the active one. "compact", for big catalogues, needs to know
    # how many ads there will be.
    store_layout: Literal["default", "compact"] | None = None
    store_expected_ads: float | None = Field(None, ge=1, le=1e12)
    image_pixels: int = Field(50_000_000, gt=0)  # larger images are refused before decoding

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | None = None) -> "Settings":
        """Defaults, then the environment, then `overrides`; ConfigurationError names the field."""
        fields = set(cls.model_fields) - {"extra_keys"}
        named = {f: os.environ.get(PREFIX + f.upper()) for f in fields}
        values: dict[str, Any] = {f: v for f, v in named.items() if v} | dict(overrides or {})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigurationError(f"settings ({PREFIX}* or args): {found}") from error


class AppArgs(_Frozen):
    """What `build(args)` of an application module receives, as JSON.

    `settings`: overrides of Settings (never secrets: those come from the replica's environment).
    `options`: the application's own, as `{"model": name}`. `deployments`: options by deployment
    name, given by `up`; in a Serve configuration they stand in its `deployments` instead.
    """

    application: str
    route_prefix: str
    settings: dict[str, JsonValue] = {}
    options: dict[str, JsonValue] = {}
    deployments: dict[str, dict[str, JsonValue]] = {}

    def load_settings(self) -> Settings:
        """Settings of the process that calls this: call it in the replica, not in `build`."""
        return Settings.load(self.settings)


class Application(_Frozen):
    """One Serve application: one capability, one route prefix, isolated from the others."""

    name: str
    route_prefix: str
    import_path: str
    options: dict[str, JsonValue] = {}
    deployments: dict[str, DeploymentValues]

    def args(self, settings: Mapping[str, JsonValue], *, sized: bool) -> dict[str, Any]:
        """Arguments of `build`; `sized`: with the deployments' options in them."""
        options = {name: d.options() for name, d in self.deployments.items()} if sized else {}
        return AppArgs(
            application=self.name,
            route_prefix=self.route_prefix,
            settings=dict(settings),
            options=self.options,
            deployments=options,
        ).model_dump()


class Topology(_Frozen):
    """Everything that is deployed, and where it listens."""

    profile: Profile
    host: str
    port: int
    grpc_port: int
    applications: tuple[Application, ...]

    @property
    def http_options(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port, "keep_alive_timeout_s": 300}

    @property
    def grpc_options(self) -> dict[str, Any]:
        return {"port": self.grpc_port, "grpc_servicer_functions": list(GRPC_SERVICERS)}

    @property
    def logging_config(self) -> dict[str, Any]:
        # Our own request logs carry the request id; Serve's would say the same twice.
        return {"encoding": "JSON", "log_level": "WARNING", "enable_access_log": False}


def topology(
    profile: Profile,
    *,
    models: Sequence[str] = REFERENCE_MODELS,
    host: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    checks: bool = False,
) -> Topology:
    """The applications of a profile with one per model of `models`; None: the profile's value.

    checks: with the language model that judges ads.
    """
    values = tomllib.loads((Path(__file__).parent / f"{profile}.toml").read_text("utf-8"))
    sizes = {name: DeploymentValues.model_validate(v) for name, v in values["deployments"].items()}
    rooms = [
        Application(
            name=name,
            route_prefix=prefix,
            import_path=f"serving.{name}.app:build",
            deployments={name: sizes[name]},
        )
        for name, prefix in (
            ("lookup", "/v1/lookup"),
            ("ingest", "/v1/ads"),
            ("encode", "/v1/encode"),
        )
    ]
    server = Application(
        name="models",
        route_prefix="/v2",
        import_path="serving.models.server:build",
        options={"models": list(models)},
        deployments={"models": sizes["models"]},
    )
    each = [
        Application(
            name=model,
            route_prefix=f"/v2/models/{model}",
            import_path="serving.models.app:build",
            options={"model": model},
            deployments={"model": sizes.get(model, sizes["model"])},
        )
        for model in models
    ]
    judges = [
        Application(
            name=CHECKS,
            route_prefix="/v1/checks",
            import_path="serving.checks.app:build",
            options={"llm": LlmValues.model_validate(values["llm"]).model_dump()},
            deployments={name: sizes[name] for name in ("checks", "llm")},
        )
    ]
    listen = values["listen"]
    return Topology(
        profile=profile,
        host=host or listen["host"],
        port=port or listen["port"],
        grpc_port=grpc_port or listen["grpc_port"],
        applications=(*rooms, server, *each, *(judges if checks else ())),
    )


def serve_config(of: Topology, settings: Mapping[str, JsonValue] | None = None) -> dict[str, Any]:
    """The multi-application Serve configuration (a RayService's `serveConfigV2`), JSON-able."""
    return {
        "proxy_location": "EveryNode",
        "http_options": of.http_options,
        "grpc_options": of.grpc_options,
        "logging_config": of.logging_config,
        "applications": [
            {
                "name": app.name,
                "route_prefix": app.route_prefix,
                "import_path": app.import_path,
                "args": app.args(settings or {}, sized=False),
                "deployments": [{"name": n, **d.options()} for n, d in app.deployments.items()],
            }
            for app in of.applications
        ],
    }


def ray_environment(profile: Profile) -> dict[str, str]:
    """Variables that head and workers must have *before* Ray starts; later has no effect."""
    common = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_PROXY_USE_GRPC": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.outermost.registered",
        # Replicas count instead: a process that reads a line of HAProxy's a request takes a tenth
        # of what a refusal costs.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(64 << 10),
        "RAY_SERVE_HAPROXY_H2_FE_INITIAL_WINDOW_SIZE": str(4 << 20),  # image tensors
        "RAY_SERVE_HAPROXY_H2_BE_INITIAL_WINDOW_SIZE": str(4 << 20),
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 << 20),
        "RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS": "1,2,3,5,7,10,15,20,30,50,100,200,500,1000,5000",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if profile == "production":
        return common
    return common | {  # a shutdown has nothing to drain
        # Ray's 15 would let whatever else the machine runs go before every answer.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "2",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    }


def private_replicas(ports: range | None) -> dict[str, str]:
    """Variables that keep the replicas' own listeners in `ports`; None: Serve's fixed ranges.

    Two instances with the same range answer requests of each other: a replica that ends leaves its
    port to the other's while HAProxy still sends there.
    """
    if ports is None:
        return {}
    half = len(ports) // 2
    named = (("HTTP", ports[:half]), ("GRPC", ports[half:]))
    return {
        f"RAY_SERVE_DIRECT_INGRESS_{bound}_{protocol}_PORT": str(port)
        for protocol, part in named
        for bound, port in (("MIN", part[0]), ("MAX", part[-1]))
    }


def private_haproxy(folder: Path, ports: Sequence[int]) -> dict[str, str]:
    """Variables that keep HAProxy's files in `folder` and its inner listeners on 4 free `ports`.

    Without them one Serve instance a machine is possible; `up` sets them so that nothing
    else that runs here is in its way.
    """
    names = ("HAPROXY_STATS", "HAPROXY_METRICS", "FALLBACK_PROXY_HTTP", "FALLBACK_PROXY_GRPC")
    listen = {f"RAY_SERVE_{n}_PORT": str(p) for n, p in zip(names, ports, strict=True)}
    return listen | {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def apply_environment(variables: Mapping[str, str]) -> None:
    """Set variables for this process and all that it starts; call before importing Ray."""
    os.environ.update(variables)
