"""A TensorRT plan that computes: named arrays for named arrays.

In: a verified plan (it is machine code: see `export.tensorrt_tag.read_tag`), and the graph it was
built from. Out: outputs as numpy arrays. Memory and streams on the GPU are torch's. One run at a
time: an execution context is not to be shared by threads.
Source: NVIDIA, TensorRT 11.4 Python API (checked by name against its wheel; never run here).
"""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import GraphError
from export.manifest import Graph, TensorSpec
from export.tensorrt_tag import load_tensorrt

Array = npt.NDArray[Any]
# Where memory is taken.
DEVICE = "cuda"
_TORCH_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class Engine:
    """A plan in an execution context.

    Args:
        plan: bytes that were verified.
        graph: names, dtypes and shapes that the plan must have.

    Raises:
        GraphError: TensorRT refuses the plan, or it has other tensors.
    """

    def __init__(self, plan: bytes, graph: Graph) -> None:
        self._trt = load_tensorrt()
        self._logger = self._trt.Logger(self._trt.Logger.Severity.WARNING)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise GraphError("TensorRT refuses the plan: was it built by another release?")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise GraphError("TensorRT has no memory for the plan's context")
        self.graph = graph
        self._device = DEVICE
        self._lock = threading.Lock()
        self._check()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs; more rows than the profile's largest batch are computed in parts.

        Raises:
            ValueError: sizes outside of the profile.
        """
        rows = len(next(iter(inputs.values())))
        most = self._most_rows()
        with self._lock:
            if most is None or rows <= most:
                return self._run(inputs)
            parts = [
                self._run({name: array[at : at + most] for name, array in inputs.items()})
                for at in range(0, rows, most)
            ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        held = {}  # until the GPU has read them
        for spec in self.graph.inputs:
            tensor = torch.from_numpy(np.ascontiguousarray(inputs[spec.name])).to(self._device)
            if not self._context.set_input_shape(spec.name, tuple(tensor.shape)):
                low, _, high = self._engine.get_tensor_profile_shape(spec.name, 0)
                raise ValueError(
                    f"{spec.name}: the plan takes {tuple(low)} to {tuple(high)}, not "
                    f"{tuple(tensor.shape)}: build it with --profile"
                )
            self._context.set_tensor_address(spec.name, tensor.data_ptr())
            held[spec.name] = tensor
        outputs = {}
        for spec in self.graph.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            tensor = torch.empty(shape, dtype=self._torch_type(spec), device=self._device)
            self._context.set_tensor_address(spec.name, tensor.data_ptr())
            outputs[spec.name] = tensor
        on_gpu = self._device != "cpu"
        stream = torch.cuda.current_stream() if on_gpu else None
        if not self._context.execute_async_v3(stream.cuda_stream if stream else 0):
            raise GraphError("TensorRT could not run the plan: its log says why")
        if stream:
            stream.synchronize()
        return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}

    def _most_rows(self) -> int | None:
        """Largest batch; None where an input does not begin with a dynamic axis."""
        leading = {
            spec.shape[0] if spec.shape else 0 for spec in (*self.graph.inputs, *self.graph.outputs)
        }
        if len(leading) != 1 or not isinstance(leading.pop(), str):
            return None
        name = self.graph.inputs[0].name
        _, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        return int(next(iter(largest)))

    def _torch_type(self, spec: TensorSpec) -> Any:
        import torch

        return getattr(torch, _TORCH_NAMES[self._engine.get_tensor_dtype(spec.name).name])

    def _check(self) -> None:
        names = {self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)}
        wanted = (*self.graph.inputs, *self.graph.outputs)
        if names != {spec.name for spec in wanted}:
            raise GraphError(f"the plan has tensors {sorted(names)}")
        for spec in wanted:
            found = _TORCH_NAMES.get(self._engine.get_tensor_dtype(spec.name).name)
            if found != spec.dtype:
                raise GraphError(f"{spec.name}: the plan has {found}, expected {spec.dtype}")
