"""Steps on a CPU without autograd: a small model computes quickly, and what it has to compute takes
as long to find out."""

import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from training.distributed import process_count
from training.errors import require
from training.model import Terms
from training.precision import Precision, rounded_products
from training.state import FitState
from training.updates import Computed, norm_of, numbers_of, sums_of

_WORTH = 1000  # steps: recording takes a second, and spares a tenth to a fifth of each
_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}

# Of these, torch's own functions take the same arguments, and read them faster.
_SAME = {"add", "addmm", "div", "exp", "mm", "mul", "neg", "sigmoid", "sub", "t", "tanh"}
_OPERATION = re.compile(r"\btorch\.ops\.aten\.(\w+)\.(\w+)\(")

Program = Callable[..., list[Tensor]]
# Observations, noise and, of a data set with labels, labels.
Drawn = tuple[Tensor, ...]


def can_record(state: FitState, device: str, steps: int) -> bool:
    """Whether running a recorded step does what the step does, and is worth it.

    Not on other devices, which have graphs of their own; not with other processes, whose sums are
    not recorded; and not where buffers move along (a codebook, the variance of a batch), which may
    look at numbers to decide. A fit that goes on finds the same.
    """
    still = not any(True for _ in state.model.buffers())
    return device == "cpu" and process_count() == 1 and still and steps >= _WORTH


class RecordedSteps:
    """Does what `backward` does with a full batch, by the operations that it took the first time.

    They run as they are, without autograd and the model's Python. Gradients are tensors of their
    own, so that none has to be zeroed or added to. Batches of other sizes, such as the last of an
    epoch, go to `backward`, and all do if a recording fails or finds another gradient, of which
    `report` is told.
    """

    def __init__(
        self,
        draw: Callable[[Tensor], Drawn],
        loss: Callable[[Drawn, float | Tensor], tuple[Tensor, Terms]],
        backward: Callable[[Drawn, float], Computed],
        state: FitState,
        batch_size: int,
        precision: Precision,
        report: Callable[[str], None],
    ) -> None:
        self._draw = draw
        self._loss = loss
        self._backward = backward
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        self._batch_size = batch_size
        self._precision: Precision = precision
        self._report = report
        self._program: Program | None = None
        self._refused = False

    def __call__(self, indices: Tensor, weight: float) -> Computed:
        """`training.updates.backward` for the items `indices` and the rate's weight."""
        drawn = self._draw(indices)
        if self._refused or len(indices) != self._batch_size:
            return self._backward(drawn, weight)
        if self._program is None:
            return self._record(drawn, weight)
        return self._run(self._program, drawn, weight)

    def _run(self, program: Program, drawn: Drawn, weight: float) -> Computed:
        with torch.inference_mode():
            with rounded_products(self._precision):
                sums, *gradients = program(*self._parameters, *drawn, torch.tensor(weight))
            return numbers_of(sums, norm_of(gradients)), gradients

    def _record(self, drawn: Drawn, weight: float) -> Computed:
        """A step both ways. What was recorded counts, so that fits which go on do the same."""
        expected = self._backward(drawn, weight)
        if not expected[0].isfinite().all():
            return expected
        try:
            inputs = (*self._parameters, *drawn, torch.tensor(weight))
            program = _without_python(_program(make_fx(self._step)(*inputs)), inputs)
            found = self._run(program, drawn, weight)
            self._check(expected, found)
        except Exception as error:  # noqa: BLE001 - whatever torch's tracer raises: steps do without
            self._refused = True
            reason = str(error).strip().partition("\n")[0]
            self._report(f"steps run with autograd: {reason}")
            return expected
        self._program = program
        return found

    def _step(self, *values: Tensor) -> list[Tensor]:
        """Parameters, what is drawn and the weight -> sums, and the gradient of each parameter.

        The parameters are the model's own tensors, by which the recording knows them as inputs.
        """
        *drawn, weight = values[len(self._parameters) :]
        value, terms = self._loss(tuple(drawn), weight)
        gradients = torch.autograd.grad(
            value, self._parameters, allow_unused=True, materialize_grads=True
        )
        return [sums_of(value, terms), *(gradient.contiguous() for gradient in gradients)]

    def _check(self, expected: Computed, found: Computed) -> None:
        """Raise TrainingError unless all is equal but for rounding."""
        tolerance = _TOLERANCE[self._precision]
        pairs = [(expected[0], found[0])]
        for parameter, gradient in zip(self._parameters, found[1], strict=True):
            assert parameter.grad is not None
            pairs.append((parameter.grad, gradient))
        largest = max(float(one.abs().max()) for one, _ in pairs[1:])
        for index, (one, other) in enumerate(pairs):
            scale = largest if index else float(one.abs().max())
            close = float((one - other).abs().max()) <= tolerance * scale
            require(close, "a recorded one finds another gradient")


def _program(traced: GraphModule) -> Program:
    """What was recorded, as a function.

    It calls them by names of its own: looking each up in torch.ops, and what that does before it
    calls, would be a twentieth of a step.
    """
    _shorten(traced.graph)
    code = traced.graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)

    def named(found: re.Match[str]) -> str:
        operation, overload = found.groups()
        name = f"_{operation}_{overload}"
        called = getattr(getattr(torch.ops.aten, operation), overload)._op
        names[name] = getattr(torch, operation) if operation in _SAME else called
        return f"{name}("

    exec(_OPERATION.sub(named, code.src), names)  # noqa: S102 - torch's own text of what it traced
    return cast("Program", partial(names["forward"], traced))


def _without_python(program: Program, inputs: tuple[Tensor, ...]) -> Program:
    """The program for torch's own interpreter, if that knows all of its operations.

    It is a tenth faster than Python's. Derivatives of convolutions it does not know. Later versions
    of torch will be without it; nothing else would change.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                lambda *values: tuple(program(*values)),
                tuple(value.detach() for value in inputs),
                check_trace=False,
            )
        except RuntimeError:
            return program
    return cast("Program", traced)


def _shorten(graph: Graph) -> None:
    """Leave out what autograd notes for itself alone, and transposing twice."""
    detach, transpose = torch.ops.aten.detach.default, torch.ops.aten.t.default
    for node in graph.nodes:
        if node.target is detach:
            node.replace_all_uses_with(node.args[0])
        elif node.target is transpose and node.args[0].target is transpose:
            node.replace_all_uses_with(node.args[0].args[0])
    graph.eliminate_dead_code()
