"""The one place of configuration: layers, topology, and what Serve itself makes of it."""

import tomllib
import warnings
from pathlib import Path

import pytest

from serving import config
from serving.config import AppArgs, Settings, ray_environment, serve_config, topology
from serving.errors import ConfigurationError
from serving.sizes import Autoscaling, DeploymentValues


def test_overrides_win_over_the_environment_and_that_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TESSERA_NAMESPACE", "shop")
    monkeypatch.setenv("TESSERA_MODELS", "/bundles")
    settings = Settings.load({"models": "elsewhere"})
    assert settings.namespace == "shop"
    assert settings.models == Path("elsewhere")
    assert settings.log_level == "INFO"


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError, match="log_level"):
        Settings.load()
    monkeypatch.delenv("TESSERA_LOG_LEVEL")
    with pytest.raises(ConfigurationError, match="colour"):
        Settings.load({"colour": "red"})


def test_the_store_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_REDIS_URL", "redis://:hush@localhost:6379")
    assert "hush" not in repr(Settings.load())


@pytest.mark.parametrize("profile", ["development", "production"])
def test_serve_accepts_the_configuration(profile: config.Profile) -> None:
    with warnings.catch_warnings(action="ignore"):  # Ray's own, when it is imported
        from ray.serve.schema import ServeDeploySchema
    made = serve_config(topology(profile, models=("image_encoder", "mine")))
    schema = ServeDeploySchema.model_validate(made)
    prefixes = {app.name: app.route_prefix for app in schema.applications}
    assert prefixes == {
        "lookup": "/v1/lookup",
        "ingest": "/v1/ads",
        "encode": "/v1/encode",
        "models": "/v2",
        "image_encoder": "/v2/models/image_encoder",
        "mine": "/v2/models/mine",
    }


def test_development_fits_on_two_cores_and_production_is_larger() -> None:
    def asked(profile: config.Profile) -> float:
        apps = topology(profile, checks=True).applications
        return sum(d.num_cpus for app in apps for d in app.deployments.values())

    assert asked("development") <= 2
    assert asked("production") > asked("development")


def test_every_deployment_of_a_profile_is_used() -> None:
    for profile in ("development", "production"):
        path = Path(config.__file__).parent / f"{profile}.toml"
        named = set(tomllib.loads(path.read_text())["deployments"])
        applications = topology(profile, checks=True).applications
        used = {n for app in applications for n in app.deployments}
        assert named == used


def test_a_model_may_have_sizes_of_its_own() -> None:
    values = DeploymentValues(num_cpus=3, autoscaling=Autoscaling(max_replicas=4))
    options = values.options()
    assert options["ray_actor_options"] == {"num_cpus": 3}
    assert options["autoscaling_config"]["max_replicas"] == 4
    assert "num_replicas" not in options


def test_build_arguments_are_json_and_hold_no_url() -> None:
    for app in topology("development").applications:
        args = app.args({"namespace": "x"}, sized=True)
        parsed = AppArgs.model_validate(args)
        assert parsed.application == app.name
        assert set(parsed.deployments) == set(app.deployments)
        assert "redis_url" not in parsed.settings
        assert app.args({}, sized=False)["deployments"] == {}


def test_haproxy_is_asked_for_before_ray_starts() -> None:
    for profile in ("development", "production"):
        variables = ray_environment(profile)
        assert variables["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert variables["RAY_AUTH_MODE"] == "token"
    assert "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S" not in ray_environment("production")


def test_private_haproxy_names_every_shared_port_and_file(tmp_path: Path) -> None:
    variables = config.private_haproxy(tmp_path, (1, 2, 3, 4))
    assert sorted(v for n, v in variables.items() if n.endswith("_PORT")) == ["1", "2", "3", "4"]
    assert all(str(tmp_path) in v for n, v in variables.items() if not n.endswith("_PORT"))


def test_private_replicas_share_a_range_between_the_protocols() -> None:
    names = [
        f"RAY_SERVE_DIRECT_INGRESS_{bound}_{protocol}_PORT"
        for protocol in ("HTTP", "GRPC")
        for bound in ("MIN", "MAX")
    ]
    found = config.private_replicas(range(30_000, 30_008))
    assert [found[name] for name in names] == ["30000", "30003", "30004", "30007"]
    assert config.private_replicas(None) == {}
