"""CUDA graphs of a fit's steps: the kernels of a small model take less time than launching them."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from training.distributed import process_count
from training.state import FitState
from training.updates import Computed

_EAGER = 3  # steps before a capture, in which the libraries allocate what they keep


def can_capture(state: FitState, device: str) -> bool:
    """Whether replaying a step does what the step does.

    Not on the CPU; not with other processes, whose sums are not in the graph; and not where
    buffers move along (a codebook, the variance of a batch), which may look at numbers to decide.
    """
    still = not any(True for _ in state.model.buffers())
    return device.startswith("cuda") and process_count() == 1 and still


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    indices: Tensor
    weight: Tensor
    numbers: Tensor


class CapturedSteps:
    """Does what `compute` does with indices [N] int64 and the rate's weight, as a CUDA graph.

    Draws, loss, gradient and their sums are one graph for each N, captured after a few steps of
    that N and launched at once. The generator's draws go on from step to step as they do without.
    If a capture fails, `report` receives why, and all steps run without graphs.
    """

    def __init__(
        self,
        compute: Callable[[Tensor, float | Tensor], Computed],
        state: FitState,
        report: Callable[[str], None],
    ) -> None:
        self._compute = compute
        self._state = state
        self._report = report
        self._seen: dict[int, int] = {}
        self._captured: dict[int, _Captured] = {}
        self._refused = False

    def __call__(self, indices: Tensor, weight: float) -> Computed:
        """`training.updates.backward` for the items `indices` and the rate's weight."""
        size = len(indices)
        captured = self._captured.get(size)
        if captured is None and not self._refused:
            self._seen[size] = self._seen.get(size, 0) + 1
            if self._seen[size] > _EAGER:
                captured = self._capture(indices, weight)
        if captured is None:
            return self._compute(indices, weight)
        captured.indices.copy_(indices)
        captured.weight.fill_(weight)
        captured.graph.replay()
        return captured.numbers, [self._state.gradient]

    def _capture(self, indices: Tensor, weight: float) -> _Captured | None:
        static = indices.clone()
        scalar = torch.full((), weight, dtype=torch.float32, device=indices.device)
        graph = torch.cuda.CUDAGraph()
        before = self._state.generator.get_state()
        graph.register_generator_state(self._state.generator)
        try:
            with _no_garbage(), torch.cuda.graph(graph):
                numbers, _ = self._compute(static, scalar)
        except RuntimeError as error:
            self._refused = True
            # The one that has seen a capture end so goes on waiting for its end.
            self._state.generator = torch.Generator(indices.device)
            self._state.generator.set_state(before)
            reason = str(error).strip().partition("\n")[0]
            self._report(f"steps run without CUDA graphs: {reason}")
            return None
        self._captured[len(indices)] = _Captured(graph, static, scalar, numbers)
        return self._captured[len(indices)]


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keeps the graphs of an earlier fit from being freed meanwhile, which ends a capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
