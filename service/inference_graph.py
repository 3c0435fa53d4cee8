"""One graph of a model version as a model of the Open Inference Protocol."""

import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Final

from inference import inference_service_pb2 as pb
from numpy.typing import NDArray

from service.errors import InvalidRequest
from service.execution import Execution
from service.inference_tensors import Input, type_of
from service.model import Model
from service.repository import Spec
from service.sampling import new_seed
from service.tensors import check_finite
from service.transport import Call
from service.transport.spliced import Buffer, Spliced
from service.wire import bytes_field

Arrays = dict[str, NDArray[Any]]
_NOISE: Final = "noise"
_DRAWN: Final = {"latents", "rate", "distortion", "log_weight"}  # what depends on the noise
_UNSERVED: Final = {"classification", "shared_memory_region"}  # they would change an output
_RAW: Final = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
_INT64_MAX: Final = 2**63 - 1
_UINT64_MAX: Final = 2**64 - 1


class ServedGraph:
    """A graph, and whatever is the same for every request to it.

    name: "NAME.encoder", "NAME.decoder", "NAME.prior" or "NAME.scorer", or one of these but the
    prior with "_uint8" behind. version: as the wire has it. optional: inputs that a request may
    leave out.
    """

    def __init__(self, model: Model, kind: str, max_items: int) -> None:
        self.model = model
        self.kind = kind
        self.name = f"{model.version.name}.{kind}"
        self.version = str(model.version.version)
        graph = model.version.graphs[kind]
        checks = {"observations": model.check_observations}
        self.inputs = {
            spec.name: Input(spec, max_items, checks.get(spec.name, check_finite))
            for spec in graph.inputs
        }
        self.outputs = {spec.name: spec for spec in graph.outputs}
        self.optional = {_NOISE} if kind.startswith(("encoder", "scorer")) else set()
        self._levels = model.batchers[kind].options.priority_levels
        self._all_outputs = tuple(self.outputs)
        # Of a bounded size: whoever sends requests of many sizes must not fill the memory. Without
        # a way back to this graph, whose model has to end with the last request to it.
        head = partial(_make_head, self.name, self.version, self.outputs)
        self._head = lru_cache(maxsize=256)(head)

    async def infer(self, request: pb.ModelInferRequest, call: Call) -> Spliced:
        """Runs the graph. Raises the errors of `service.errors`."""
        outputs = self._requested(request) if request.outputs else self._all_outputs
        inputs = self._read(request)
        seed = _read_seed(request) if request.parameters else None
        items = len(next(iter(inputs.values())))
        if len(inputs) < len(self.inputs):  # the noise was left out
            if seed is None and not _DRAWN.isdisjoint(outputs):
                seed = new_seed()
            inputs[_NOISE] = await self.model.encoder_noise(seed, 0, items)
        elif seed is not None:
            raise InvalidRequest("parameters.seed", "is only used for noise that is left out")
        execution = Execution(call.deadline)
        if request.parameters:
            execution = Execution(_deadline(request, call), _priority(request, self._levels))
        arrays = await self.model.run(self.kind, inputs, execution)
        pieces: list[Buffer] = [self._head(items, outputs)]
        if request.id or seed is not None:
            pieces.append(_echo(request.id, seed))
        for name in outputs:
            pieces += bytes_field(_RAW, arrays[name])
        return Spliced(pieces)

    def _requested(self, request: pb.ModelInferRequest) -> tuple[str, ...]:
        names: list[str] = []
        for output in request.outputs:
            name = output.name
            if name not in self.outputs or name in names:
                raise InvalidRequest("outputs", f"expected {', '.join(self.outputs)}, each once")
            if output.parameters:
                for parameter in _UNSERVED & set(output.parameters):
                    raise InvalidRequest(f"outputs.{name}", f"{parameter} is not served")
            names.append(name)
        return tuple(names)

    def _read(self, request: pb.ModelInferRequest) -> Arrays:
        raw, given = request.raw_input_contents, request.inputs
        has_raw = len(raw) > 0
        if has_raw and len(raw) != len(given):
            raise InvalidRequest(
                "raw_input_contents", f"expected {len(given)}, as there are inputs, not {len(raw)}"
            )
        arrays: Arrays = {}
        for index, tensor in enumerate(given):
            name = tensor.name
            reader = self.inputs.get(name)
            if reader is None or name in arrays:
                raise InvalidRequest("inputs", f"expected {self._expected()}, each once")
            arrays[name] = reader.read(tensor, raw[index] if has_raw else None)
        if len(arrays) < len(self.inputs):
            missing = sorted(self.inputs.keys() - arrays.keys() - self.optional)
            if missing:
                text = f"expected {self._expected()}; {missing[0]} is missing"
                raise InvalidRequest("inputs", text)
        self._check(arrays)
        return arrays

    def _check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        if len(arrays) > 1 and len({len(array) for array in arrays.values()}) > 1:
            raise InvalidRequest("inputs", "expected the same number of items in all")
        if self.model.code_count and "latents" in arrays:
            self.model.check_codes(arrays["latents"], "latents.data")
        if "label" in arrays:
            self.model.check_labels(arrays["label"].tolist(), "label.data")

    def _expected(self) -> str:
        names = (f"{name} (optional)" if name in self.optional else name for name in self.inputs)
        return ", ".join(names)


def _make_head(
    graph: str, version: str, specs: Mapping[str, Spec], items: int, outputs: tuple[str, ...]
) -> bytes:
    """A serialized response to so many items, without what differs between requests."""
    head = pb.ModelInferResponse(model_name=graph, model_version=version)
    for name in outputs:
        spec = specs[name]
        head.outputs.add(name=name, datatype=type_of(spec).name, shape=(items, *spec.shape))
    return head.SerializeToString()


def _echo(identity: str, seed: int | None) -> bytes:
    """What a response repeats of its request, and the seed that was drawn with."""
    response = pb.ModelInferResponse(id=identity)
    if seed is not None:
        parameter = response.parameters["seed"]
        if seed > _INT64_MAX:
            parameter.uint64_param = seed
        else:
            parameter.int64_param = seed
    return response.SerializeToString()


def _read_seed(request: pb.ModelInferRequest) -> int | None:
    return _read_integer(request, "seed", 0, _UINT64_MAX)


def _deadline(request: pb.ModelInferRequest, call: Call) -> float | None:
    """The earlier of the call's deadline and Triton's `timeout`, microseconds from now."""
    timeout = _read_integer(request, "timeout", 1, _INT64_MAX)
    if timeout is None:
        return call.deadline
    deadline = time.monotonic() + timeout / 1e6
    return deadline if call.deadline is None else min(deadline, call.deadline)


def _priority(request: pb.ModelInferRequest, levels: int) -> int:
    return _read_integer(request, "priority", 0, levels) or 0


def _read_integer(request: pb.ModelInferRequest, name: str, least: int, largest: int) -> int | None:
    if name not in request.parameters:
        return None
    parameter = request.parameters[name]
    choice = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, choice) if choice in ("int64_param", "uint64_param") else -1
    if not least <= value <= largest:
        raise InvalidRequest(
            f"parameters.{name}", f"expected an int64_param or uint64_param, {least} to {largest}"
        )
    return int(value)
