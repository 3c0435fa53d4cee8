"""Steps on a CPU without autograd: a small model computes quickly, and what it has to compute takes
as long to find out."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from training.config import FitConfig
from training.distributed import process_count
from training.errors import require
from training.model import Terms
from training.precision import rounded_products
from training.state import FitState
from training.updates import Computed, norm_of, numbers_of, sums_of

_WORTH = 1000  # steps: recording takes a second, and spares a tenth to a fifth of each
_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}

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
        config: FitConfig,
        report: Callable[[str], None],
    ) -> None:
        self._draw = draw
        self._loss = loss
        self._backward = backward
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        self._config = config
        self._report = report
        self._graph: GraphModule | None = None
        self._refused = False

    def __call__(self, indices: Tensor, weight: float) -> Computed:
        """`training.updates.backward` for the items `indices` and the rate's weight."""
        drawn = self._draw(indices)
        if self._refused or len(indices) != self._config.batch_size:
            return self._backward(drawn, weight)
        if self._graph is None:
            return self._record(drawn, weight)
        return self._run(self._graph, drawn, weight)

    def _run(self, graph: GraphModule, drawn: Drawn, weight: float) -> Computed:
        with torch.inference_mode():
            with rounded_products(self._config.precision):
                sums, *gradients = graph(*self._parameters, *drawn, torch.tensor(weight))
            return numbers_of(sums, norm_of(gradients)), gradients

    def _record(self, drawn: Drawn, weight: float) -> Computed:
        """A step both ways. What was recorded counts, so that fits which go on do the same."""
        expected = self._backward(drawn, weight)
        if not expected[0].isfinite().all():
            return expected
        try:
            graph = make_fx(self._step)(*self._parameters, *drawn, torch.tensor(weight))
            graph.graph.eliminate_dead_code()
            graph.recompile()
            found = self._run(graph, drawn, weight)
            self._check(expected, found)
        except Exception as error:  # noqa: BLE001 - whatever torch's tracer raises: steps do without
            self._refused = True
            reason = str(error).strip().partition("\n")[0]
            self._report(f"steps run with autograd: {reason}")
            return expected
        self._graph = graph
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
        tolerance = _TOLERANCE[self._config.precision]
        pairs = [(expected[0], found[0])]
        for parameter, gradient in zip(self._parameters, found[1], strict=True):
            assert parameter.grad is not None
            pairs.append((parameter.grad, gradient))
        largest = max(float(one.abs().max()) for one, _ in pairs[1:])
        for index, (one, other) in enumerate(pairs):
            scale = largest if index else float(one.abs().max())
            close = float((one - other).abs().max()) <= tolerance * scale
            require(close, "a recorded one finds another gradient")
