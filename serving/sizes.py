"""How large things are made: records that the profiles' TOML files are read into.

In: tables of `development.toml` and `production.toml`. Out: sizes and limits of deployments, as
Serve takes them, and of the language-model engine. Reads nothing itself: `config.py` does.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Autoscaling(_Frozen):
    """Serve's autoscaling of one deployment; its own defaults are too slow for traffic."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(2.0, gt=0)
    upscale_delay_s: float = 5.0
    downscale_delay_s: float = 120.0
    look_back_period_s: float = 15.0


class LlmValues(_Frozen):
    """The language-model engine. The KV cache is touched whole at the start; nice: of its process.

    waiting: asks that may be in the engine at once, and waiting_tokens those of their tokens that
    are not in the prefix cache; more are refused.
    """

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    kv_cache_bytes: int = Field(default=128 << 20, gt=0)
    max_sequences: int = Field(default=64, ge=1)
    max_batched_tokens: int = Field(default=4096, ge=1)
    prefix_caching: bool = True
    enforce_eager: bool = False
    waiting: int = Field(default=4096, ge=1)
    waiting_tokens: int = Field(default=1 << 18, ge=1)
    nice: int = Field(default=0, ge=0, le=19)


class DeploymentValues(_Frozen):
    """Size and limits of one deployment; `max_queued_requests` is per replica, -1 unbounded.

    environment: variables of its replicas' processes, set before they import anything.
    """

    num_replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, gt=0)
    num_gpus: float = Field(0.0, ge=0)
    max_ongoing_requests: int = Field(64, ge=1)
    max_queued_requests: int = Field(256, ge=-1)
    graceful_shutdown_timeout_s: float = 20.0
    environment: dict[str, str] = {}
    autoscaling: Autoscaling | None = None

    def options(self) -> dict[str, Any]:
        """The same as keyword arguments of `Deployment.options` and of a DeploymentSchema."""
        actor: dict[str, Any] = {"num_cpus": self.num_cpus}
        if self.num_gpus:
            actor["num_gpus"] = self.num_gpus
        if self.environment:
            actor["runtime_env"] = {"env_vars": self.environment}
        options: dict[str, Any] = {
            "ray_actor_options": actor,
            "max_ongoing_requests": self.max_ongoing_requests,
            "max_queued_requests": self.max_queued_requests,
            # As our own refusals; Serve's default would be 503, which says that nothing works.
            "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
            "graceful_shutdown_timeout_s": self.graceful_shutdown_timeout_s,
            "graceful_shutdown_wait_loop_s": min(2.0, self.graceful_shutdown_timeout_s / 4),
        }
        if self.autoscaling is None:
            return options | {"num_replicas": self.num_replicas}
        return options | {"autoscaling_config": self.autoscaling.model_dump()}
