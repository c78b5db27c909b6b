"""A double of TensorRT that has what the real wheel has, called as the wheel allows, and no more.

`tensorrt_api.json` was read from the wheel that it names: classes, their members and signatures,
and the members of enums. Any other name or argument is an AssertionError. Networks are computed by
ONNX Runtime on the CPU.
"""

import ctypes
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

API = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text())
MAGIC = b"plan:"


class Checked:
    """An object of a TensorRT class: only what the wheel has, called as the wheel allows."""

    def __init__(self, kind: str, **values: Any) -> None:
        self.__dict__.update(values)
        self.__dict__["kind"] = kind

    def __getattribute__(self, name: str) -> Any:
        kind = object.__getattribute__(self, "__dict__").get("kind")
        if kind is not None and not name.startswith("_") and name not in ("kind", "own"):
            known = API["classes"][kind]
            assert name in known, f"TensorRT has no {kind}.{name}"
            if known[name] != "property":
                return _checked(known[name], object.__getattribute__(self, name))
        return object.__getattribute__(self, name)


def _parameters(signature: str) -> list[tuple[str, bool]]:
    """Names, and whether each has a default, without `self`."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    parts = [part.strip() for part in re.split(r", (?=\w+:)", inside)]
    return [(part.split(":")[0], " = " in part) for part in parts[1:]]


def _checked(signatures: list[str], function: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        for signature in signatures:
            parameters = _parameters(signature)
            names = [name for name, _ in parameters]
            given = {*names[: len(arguments)], *named}
            needed = {name for name, has_default in parameters if not has_default}
            if len(arguments) <= len(names) and set(named) <= set(names) and needed <= given:
                return function(*arguments, **named)
        raise AssertionError(f"no such call: {arguments} {named}, only {signatures}")

    return call


class Memory(bytes):
    """IHostMemory is a buffer."""


class Profile(Checked):
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.own[input] = [tuple(min), tuple(opt), tuple(max)]


class Cache(Checked):
    def serialize(self) -> Memory:
        return Memory(self.own + b"+")


class Config(Checked):
    def set_memory_pool_limit(self, pool: str, pool_size: int) -> None:
        assert pool == "WORKSPACE"
        assert pool_size > 0

    def clear_flag(self, flag: str) -> None:
        assert flag == "TF32"

    def add_optimization_profile(self, profile: Profile) -> int:
        self.own["profile"] = profile.own
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Cache:
        return Cache("ITimingCache", own=serialized_timing_cache)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        self.own["cache"] = cache
        return True

    def get_timing_cache(self) -> Cache:
        return self.own["cache"]


class Parser(Checked):
    def parse_from_file(self, model: str) -> bool:
        self.own["model"] = model
        return "refused" not in model

    num_errors = 1

    def get_error(self, index: int) -> Any:
        return ParserError("ParserError")


class ParserError(Checked):
    def desc(self) -> str:
        return "operator of another world"


class Builder(Checked):
    def create_network(self, flags: int = 0) -> Any:
        return Checked("INetworkDefinition", own={})

    def create_builder_config(self) -> Config:
        return Config("IBuilderConfig", own={})

    def create_optimization_profile(self) -> Profile:
        return Profile("IOptimizationProfile", own={})

    def build_serialized_network(self, network: Any, config: Config) -> Memory | None:
        plan = {"onnx": network.own["model"], "profile": config.own["profile"]}
        return Memory(MAGIC + json.dumps(plan).encode())


class Runtime(Checked):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if not serialized_engine.startswith(MAGIC):
            return None
        plan = json.loads(serialized_engine[len(MAGIC) :])
        session = onnxruntime.InferenceSession(plan["onnx"], providers=["CPUExecutionProvider"])
        return Engine("ICudaEngine", own=(session, plan["profile"]))


class DataType:
    def __init__(self, name: str) -> None:
        assert name in API["enums"]["DataType"]
        self.name = name


class Engine(Checked):
    @property
    def num_io_tensors(self) -> int:
        return len(self._values())

    def _values(self) -> list[Any]:
        return [*self.own[0].get_inputs(), *self.own[0].get_outputs()]

    def get_tensor_name(self, index: int) -> str:
        return self._values()[index].name

    def get_tensor_dtype(self, name: str) -> DataType:
        kind = next(value.type for value in self._values() if value.name == name)
        return DataType({"tensor(float)": "FLOAT", "tensor(int64)": "INT64"}[kind])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        assert profile_index == 0
        return self.own[1][name]

    def create_execution_context(self) -> Any:
        return Context("IExecutionContext", own=(self, {}, {}))


class Context(Checked):
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        engine, shapes, _ = self.own
        low, _, high = engine.own[1][name]
        shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.own[2][name] = memory
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        session, (_, shapes, _) = self.own[0].own[0], self.own
        sizes = {
            size: shapes[value.name][at]
            for value in session.get_inputs()
            for at, size in enumerate(value.shape)
        }
        shape = next(value.shape for value in session.get_outputs() if value.name == name)
        return tuple(sizes.get(size, size) for size in shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        (_, shapes, addresses), session = self.own, self.own[0].own[0]
        feeds = {name: at_address(addresses[name], shape) for name, shape in shapes.items()}
        names = [value.name for value in session.get_outputs()]
        for name, found in zip(names, session.run(names, feeds), strict=True):
            at_address(addresses[name], found.shape)[...] = found
        return True


def at_address(address: int, shape: tuple[int, ...]) -> Any:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


class Double:
    """Stands where `import tensorrt` looks."""

    __version__ = "11.4.0.106"
    __spec__ = None

    def Logger(self, min_severity: str) -> Any:  # noqa: N802
        return Checked("Logger")

    def __getattr__(self, name: str) -> Any:
        kinds = {"Builder": Builder, "Runtime": Runtime, "OnnxParser": Parser}
        if name in kinds:

            def make(*arguments: Any) -> Any:
                _checked(API["classes"][name]["__init__"], lambda *_: None)(*arguments)
                own = arguments[0].own if name == "OnnxParser" else {}
                return kinds[name](name, own=own)

            return make
        return Members(API["enums"][name])


class Members:
    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __getattr__(self, name: str) -> str:
        assert name in self.names, f"TensorRT has no {name}, only {self.names}"
        return name
