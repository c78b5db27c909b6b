"""A graph in ONNX Runtime, on the CPU or on a GPU.

In: a graph's file and its providers. Out: a `Session`. On a GPU inputs and outputs are bound to
device memory that each shape keeps: the runtime neither allocates nor synchronises a tensor at a
time, and batches of one bucket reuse the same buffers.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from export.manifest import Graph
from serving.errors import ConfigurationError, RefusedInputsError
from serving.providers import CPU, Options
from serving.tensors import Tensors

_REFUSALS = (state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented)
_UNREADABLE = (*_REFUSALS, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile)
KEPT_SHAPES = 64  # whose buffers are kept; the one that was used longest ago goes first


class GraphSession:
    """One graph. providers: in order of preference; the first must be there."""

    def __init__(
        self,
        path: Path,
        graph: Graph,
        providers: Sequence[tuple[str, Options]],
        threads: int,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle threads that spin take the cores of everything else on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        wanted = providers[0][0]
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=list(providers)
            )
        except _UNREADABLE as error:
            raise ConfigurationError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        found = self._session.get_providers()
        if wanted not in found:
            raise ConfigurationError(
                f"{path}: expected {wanted}, ONNX Runtime gave {found}; its log says why"
            )
        self.graph = graph
        self.provider = wanted
        self.threads = threads if wanted == CPU else 0
        self._outputs = [spec.name for spec in graph.outputs]
        strings = any(spec.dtype == "object" for spec in (*graph.inputs, *graph.outputs))
        self._bound = None if wanted == CPU or strings else Bound(self._session, "cuda")

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        try:
            if self._bound is not None:
                return self._bound.run(inputs)
            outputs = self._session.run(self._outputs, dict(inputs))
        except _REFUSALS as error:
            raise RefusedInputsError(f"the model could not compute: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        del self._session, self._bound


@dataclass(slots=True)
class _Buffers:
    """What one set of input shapes keeps: a binding, and its inputs' memory on the device."""

    binding: Any
    inputs: dict[str, Any]


class Bound:
    """Runs a session on buffers of a device; not for strings, which devices do not hold.

    device: "cuda", or "cpu", where it computes the same in the same memory as before.
    """

    def __init__(self, session: Any, device: str) -> None:
        self._session = session
        self._device = device
        self._outputs = [output.name for output in session.get_outputs()]
        self._kept: OrderedDict[tuple[Any, ...], _Buffers] = OrderedDict()

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """All outputs by name, copied to the host."""
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        key = tuple((name, array.shape, array.dtype.str) for name, array in arrays.items())
        buffers = self._kept.get(key)
        if buffers is None:
            buffers = self._make(arrays)
            self._kept[key] = buffers
            if len(self._kept) > KEPT_SHAPES:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
            for name, array in arrays.items():
                buffers.inputs[name].update_inplace(array)
        self._session.run_with_iobinding(buffers.binding)
        outputs = buffers.binding.copy_outputs_to_cpu()
        return dict(zip(self._outputs, outputs, strict=True))

    def _make(self, arrays: Mapping[str, NDArray[np.generic]]) -> _Buffers:
        binding = self._session.io_binding()
        values = {}
        for name, array in arrays.items():
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                list(array.shape), array.dtype, self._device, 0
            )
            value.update_inplace(array)
            binding.bind_ortvalue_input(name, value)
            values[name] = value
        for name in self._outputs:
            # Its size is known once it has been computed; until then it stays on the device.
            binding.bind_output(name, self._device)
        return _Buffers(binding, values)
