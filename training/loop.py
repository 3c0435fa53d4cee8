"""The loop over steps and epochs, with what guards it: restoring, early stopping, interruption."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from training.batches import Batches
from training.calibration import freeze_variance
from training.captured import CapturedSteps, can_capture
from training.config import FitConfig
from training.data import Dataset
from training.distributed import own_rows, process_count
from training.errors import InterruptedFit, TrainingError
from training.evaluate import SEED, mean_terms, test_items
from training.interruption import Wish
from training.journal import EpochMetrics, Journal
from training.model import DrawsOtherwise, Model, Terms
from training.objectives import kl_weight, loss
from training.precision import mixed, precision_for
from training.progress import Standing, Watch
from training.recorded import Drawn, RecordedSteps, can_record
from training.state import FitState
from training.updates import Computed, backward, update

_PROGRESS_LINES = 20
_SECONDS_BETWEEN_SAVES = 60.0
_PATIENCE = 10  # steps in a row that are not finite before the last good state is restored
_RESTORES = 3  # of one good state before the fit is given up


@dataclass
class Loop:
    """The state of a fit and everything that its steps and epochs touch."""

    config: FitConfig
    dataset: Dataset
    batches: Batches
    state: FitState
    journal: Journal | None
    history: list[EpochMetrics]
    report: Callable[[str], None]
    device: str
    watch: Watch | None = None

    def __post_init__(self) -> None:
        self.per_epoch = math.ceil(len(self.batches) / self.config.batch_size)
        least = math.ceil(self.config.least_steps / self.per_epoch)
        self.epochs = max(self.config.epochs, least)
        self.steps = self.epochs * self.per_epoch
        self.good = self.state.snapshot()
        self.restores, self.failed = 0, 0  # the failure that lies furthest in the fit
        self.noise_shape = self._noise_shape()
        self.started = time.perf_counter() - self.state.counters.seconds
        self.saved = -math.inf
        self.precision = precision_for(self.config.precision, self.device)
        self.compute: Callable[[Tensor, float], Computed] = self._backward
        if self.config.cuda_graphs and can_capture(self.state, self.device):
            self.compute = CapturedSteps(self._backward, self.state, self.report)
        elif can_record(self.state, self.device, self.steps):
            self.compute = RecordedSteps(
                self._draw,
                self._loss,
                self._gradient,
                self.state,
                self.config.batch_size,
                self.precision,
                self.report,
            )

    def run(self, wish: Wish, deadline: float) -> None:
        """Step until the last epoch, early stopping, a wish or the deadline."""
        if self.config.precision == "auto":
            self.report(f"precision auto: {self.precision} on this {self.device}")
        counters, failures, order = self.state.counters, 0, None
        began, done = time.perf_counter(), 0
        while counters.step < self.steps and not self._gives_up():
            epoch, index = divmod(counters.step, self.per_epoch)
            if order is None or index == 0:
                order = self.batches.order(self.config.seed, epoch)
                began, done = time.perf_counter(), 0
            indices = order[index * self.config.batch_size :][: self.config.batch_size]
            stopping = wish.stop or time.monotonic() >= deadline
            good = self.state.snapshot() if index == 0 else None
            finite, stops = self._step(indices, stopping)
            done += len(indices)
            failures = 0 if finite else failures + 1
            if finite and good is not None:
                self.good = good
            counters.seconds = time.perf_counter() - self.started
            if self.watch is not None and counters.sums[-1]:
                self.watch(self._standing(epoch + 1, done / (time.perf_counter() - began)))
            at_end = counters.step % self.per_epoch == 0
            sound = failures < min(_PATIENCE, self.per_epoch)
            if sound and at_end:
                sound = self._end_epoch(epoch + 1, done / (time.perf_counter() - began))
            if sound and counters.step > self.failed:
                self.restores = 0
            if not sound:
                self._restore(epoch + 1)
                counters, failures, order = self.state.counters, 0, None
            if stops and counters.step < self.steps:
                self._interrupt()

    def _step(self, indices: Tensor, stopping: bool) -> tuple[bool, bool]:
        config, state = self.config, self.state
        if len(indices) < process_count():  # the rest of an epoch, too few for every process
            state.counters.step += 1
            return True, False
        weight = kl_weight(config.objective, state.counters.step / self.steps)
        return update(state, config, self.steps, lambda: self.compute(indices, weight), stopping)

    def _backward(self, indices: Tensor, weight: float | Tensor) -> Computed:
        """`training.updates.backward` for the items `indices`, of which this process takes some."""
        drawn = self._draw(indices)
        return self._gradient(drawn, weight, len(drawn[0]) * process_count() / len(indices))

    def _draw(self, indices: Tensor) -> Drawn:
        observations, label = self.batches.draw(indices, self.state.generator)
        noise = self._noise(len(indices))
        return (observations, noise) if label is None else (observations, noise, label)

    def _gradient(self, drawn: Drawn, weight: float | Tensor, share: float = 1.0) -> Computed:
        def compute_loss() -> tuple[Tensor, Terms]:
            value, terms = self._loss(drawn, weight)
            return value * share, terms

        return backward(self.state, compute_loss, self.precision)

    def _loss(self, drawn: Drawn, weight: float | Tensor) -> tuple[Tensor, Terms]:
        config, model = self.config, cast("Model", self.state.model)
        observations, noise, *labels = drawn
        label = labels[0] if labels else None
        with mixed(self.precision, self.device):
            return loss(
                config.objective, model, observations, noise, label, weight, len(self.batches)
            )

    def _noise_shape(self) -> tuple[int, ...]:
        """Of an item, with the draws in front if there are any."""
        model, objective = cast("Model", self.state.model), self.config.objective
        draws = (objective.samples,) if objective.name == "importance" else ()
        # Looked up once: asking for a protocol's attributes is slow.
        return draws + (
            model.training_noise_shape if isinstance(model, DrawsOtherwise) else model.noise_shape
        )

    def _noise(self, count: int) -> Tensor:
        """Of this process's items: [N, *noise_shape], with the draws in front if there are any."""
        generator = self.state.generator
        noise = torch.randn((count, *self.noise_shape), generator=generator, device=self.device)
        rows = own_rows(noise)
        return rows.transpose(0, 1) if self.config.objective.name == "importance" else rows

    def _standing(self, epoch: int, rate_of_items: float) -> Standing:
        counters = self.state.counters
        rate, distortion, count = counters.sums
        return Standing(
            counters.step,
            self.steps,
            epoch,
            self.epochs,
            rate / count,
            distortion / count,
            rate_of_items,
        )

    def _end_epoch(self, epoch: int, rate_of_items: float) -> bool:
        """Note the epoch; whether all its numbers are finite."""
        counters = self.state.counters
        rate, distortion, count = counters.sums
        if not count:
            return False
        metrics: EpochMetrics = {
            "epoch": epoch,
            "step": counters.step,
            "train_rate": rate / count,
            "train_distortion": distortion / count,
            "train_negative_elbo": (rate + distortion) / count,
        }
        evaluates = epoch % self.config.evaluate_every == 0 or epoch == self.epochs
        if evaluates:
            metrics |= self._evaluate()
        if not all(map(math.isfinite, metrics.values())):
            return False
        counters.sums = [0.0, 0.0, 0.0]
        for name in ("skipped", "clipped", "restored"):
            metrics[name] = getattr(counters, name)
        counters.seconds = time.perf_counter() - self.started
        metrics["seconds"] = round(counters.seconds, 3)
        metrics["images_per_second"] = round(rate_of_items, 1)
        if evaluates and self.config.patience:
            self._note_best(metrics)
        self.history.append(metrics)
        if self.journal is not None:
            self.journal.add(metrics)
            if time.monotonic() - self.saved >= _SECONDS_BETWEEN_SAVES:
                self.journal.save(self.state)
                self.saved = time.monotonic()
        if epoch in (1, self.epochs) or _is_due(epoch, self.epochs):
            self.report(_line(metrics, self.epochs))
        return True

    def _evaluate(self) -> EpochMetrics:
        """The bound on the held-out items, or else the test split, with the weights that count.

        Every process does so, which keeps their decisions equal."""
        dataset, split, held = self.dataset, "test", self.config.held_out
        if held:
            observations, labels = dataset.train[-held:], dataset.train_labels[-held:]
            dataset, split = replace(dataset, test=observations, test_labels=labels), "held_out"
        model = self.state.evaluated  # once: it takes the buffers of the last step
        freeze_variance(cast("Model", model), self.batches, self.config.seed)
        training = model.training
        evaluated = cast("Model", model.eval())
        generator = torch.Generator().manual_seed(SEED)
        items = test_items(evaluated, dataset, generator).to(self.device)
        terms = mean_terms(evaluated, items, generator)
        model.train(training)
        return {
            f"{split}_rate": terms.rate,
            f"{split}_distortion": terms.distortion,
            f"{split}_negative_elbo": terms.rate + terms.distortion,
        }

    def _note_best(self, metrics: EpochMetrics) -> None:
        """Count the evaluations without a better bound, once the rate has its full weight."""
        counters, objective = self.state.counters, self.config.objective
        if kl_weight(objective, counters.step / self.steps) < objective.kl_weight:
            return
        if metrics["held_out_negative_elbo"] < counters.best:
            counters.best, counters.waited = metrics["held_out_negative_elbo"], 0
            weights = self.state.evaluated.state_dict()
            self.state.best = {name: value.clone() for name, value in weights.items()}
        else:
            counters.waited += 1

    def _gives_up(self) -> bool:
        return 0 < self.config.patience <= self.state.counters.waited

    def _restore(self, epoch: int) -> None:
        """Go back to the last good state, with other draws. Raises TrainingError if in vain."""
        self.restores += 1
        self.failed = max(self.failed, self.state.counters.step)
        if self.restores > _RESTORES:
            raise TrainingError(
                f"the loss is not finite in epoch {epoch}; try a smaller optimizer.learning_rate"
            )
        restored, skipped = self.state.counters.restored + 1, self.state.counters.skipped
        self.state.restore(*copy.deepcopy(self.good), rewind=False)
        self.state.counters.restored, self.state.counters.skipped = restored, skipped
        kept = [metrics for metrics in self.history if metrics["step"] <= self.state.counters.step]
        if len(kept) < len(self.history):
            self.history[:] = kept
            if self.journal is not None:
                self.journal.rewrite(kept)
        self.report(f"epoch {epoch}: the loss is not finite; restored the last good state")

    def _interrupt(self) -> None:
        if self.journal is None:
            raise KeyboardInterrupt
        self.journal.save(self.state)
        raise InterruptedFit(
            f"stopped after step {self.state.counters.step} of {self.steps} and saved; "
            f"continue with: python -m training resume {self.journal.path}"
        )


def _is_due(epoch: int, epochs: int) -> bool:
    return epoch % max(1, math.ceil(epochs / (_PROGRESS_LINES - 2))) == 0


def _line(metrics: EpochMetrics, epochs: int) -> str:
    line = (
        f"epoch {metrics['epoch']:>4}/{epochs}  {metrics['seconds']:7.1f} s  "
        f"{metrics['images_per_second']:7.0f} images/s  "
        f"train ELBO {-metrics['train_negative_elbo']:8.3f} "
        f"(rate {metrics['train_rate']:.3f}, distortion {metrics['train_distortion']:.3f})"
    )
    for split in ("test", "held_out"):
        if f"{split}_negative_elbo" in metrics:
            line += f"  {split} ELBO {-metrics[f'{split}_negative_elbo']:8.3f}"
    return line
