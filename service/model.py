"""A served model: sample, encode and decode on arrays, through the batchers of its graphs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.batching import Arrays, Batcher, Entry
from service.completion import Completion, run_on
from service.errors import (
    InvalidRequest,
    LatentSpaceMismatch,
    ModelNotFound,
    ModelNotReady,
    NotOffered,
)
from service.execution import Execution
from service.repository import LEVELS, VERSION, ModelVersion, shown
from service.sampling import Stream, standard_normal
from service.tensors import check_finite

Float32 = NDArray[np.float32]
Observations = NDArray[np.float32] | NDArray[np.uint8]
Latents = NDArray[np.float32] | NDArray[np.int64]  # real numbers, or codes
_DRAWN_AT_ONCE = 8192  # values of noise, some 500 us; more are drawn on a thread of their own


@dataclass(frozen=True)
class Posterior:
    """Parameters of q(z given x), and latents [items, ...latent shape] only when drawn.

    The parameters have the latents' shape, but for codes: [items, size of a vector, height, width].
    """

    mean: Float32
    log_variance: Float32
    latents: Latents | None


class Model:
    """One model version with a batcher for each of its graphs.

    Every method counts what it runs in the execution of its request, and raises the errors of
    `service.errors`.
    """

    def __init__(
        self,
        version: ModelVersion,
        batchers: Mapping[str, Batcher],
        provider: str,
        *,
        same_bits: bool = False,
    ) -> None:
        self.version = version
        self.provider = provider
        self.same_bits = same_bits  # of an item, whatever shares its batch
        self.batchers = batchers
        self.observation_shape = tuple(version.manifest.observations.shape[1:])
        self.latent_shape = version.graphs["decoder"].input("latents").shape
        self.noise_shape = version.graphs["encoder"].input("noise").shape
        self.code_count = version.manifest.code_count
        self.resource = f"models/{version.name}/versions/{version.version}"
        self._drawing = ThreadPoolExecutor(1, f"{version.name}-noise")  # starts when it has to
        value_range = version.manifest.value_range
        # Infinity is in no range, though a range may have no end.
        finite = np.finfo(np.float32)
        self._minimum = np.maximum(np.float32(value_range.minimum), finite.min)
        self._maximum = np.minimum(np.float32(value_range.maximum), finite.max)

    async def sample(
        self,
        count: int,
        seed: int,
        start_index: int,
        temperature: float,
        labels: Sequence[int],
        execution: Execution,
        uint8: bool = False,
    ) -> tuple[Observations, Latents]:
        """Observations [count, ...] and the latents [count, ...] that they were decoded from."""
        label = self._label(labels, count)
        noise = await self._noise(seed, Stream.SAMPLE, start_index, count)
        noise = noise * np.float32(temperature)
        latents: Latents = noise
        if "prior" in self.batchers:
            latents = (await self.run("prior", {"noise": noise, **label}, execution))["latents"]
        return await self._decode({"latents": latents, **label}, execution, uint8), latents

    async def encode(
        self,
        observations: Observations,
        seed: int | None,
        start_index: int,
        labels: Sequence[int],
        execution: Execution,
    ) -> Posterior:
        """The posterior of observations [items, ...]; with a seed also one draw from each."""
        outputs = await self._encode(observations, seed, start_index, labels, execution)
        latents = None if seed is None else outputs["latents"]
        return Posterior(outputs["mean"], outputs["log_variance"], latents)

    async def embed(
        self,
        observations: Observations,
        seed: int | None,
        start_index: int,
        labels: Sequence[int],
        execution: Execution,
    ) -> Float32:
        """A draw [items, ...] from each posterior, or its mean without a seed."""
        outputs = await self._encode(observations, seed, start_index, labels, execution)
        return outputs["latents"]

    async def score(
        self,
        observations: Observations,
        draws: int,
        seed: int,
        start_index: int,
        labels: Sequence[int],
        execution: Execution,
    ) -> Mapping[str, Float32]:
        """rate, distortion and log_weight [items x draws] of observations [items, ...].

        Raises NotOffered if the version has no scorer.
        """
        if "scorer" not in self.batchers:
            raise NotOffered(
                f"{self.resource} has no scorer: its objective is no bound of likelihood"
            )
        count = len(observations)
        noise = await self._noise(seed, Stream.SCORE, start_index, count, draws)
        label = self._label(labels, count)
        graph, name = "scorer", "observations"
        if observations.dtype == np.uint8:
            graph, name = "scorer_uint8", LEVELS
        given: Arrays = {name: observations, **label}
        repeated = {key: np.repeat(array, draws, axis=0) for key, array in given.items()}
        return await self.run(graph, {**repeated, "noise": noise}, execution)

    async def decode(
        self,
        latents: Latents,
        latent_space: str | None,
        labels: Sequence[int],
        execution: Execution,
        uint8: bool = False,
    ) -> Observations:
        """Observations [items, ...] of latents [items, ...], in float32 or in uint8."""
        if latent_space is not None:
            self.check_latent_space(latent_space)
        inputs: Arrays = {"latents": latents, **self._label(labels, len(latents))}
        return await self._decode(inputs, execution, uint8)

    async def run(self, graph: str, inputs: Arrays, execution: Execution) -> Mapping[str, Float32]:
        """The outputs of a graph for arrays [items, ...], which must be as the graph takes them."""
        answer = _Answer()
        items = len(next(iter(inputs.values())))
        batcher = self.batchers[graph]
        answer.entry = batcher.submit(
            inputs, items, answer.settle_from, execution.deadline, execution.priority
        )
        outputs = await answer
        execution.add(answer.entry)
        return cast("Mapping[str, Float32]", outputs)

    async def encoder_noise(self, seed: int | None, start_index: int, count: int) -> Float32:
        """What an encoder or a scorer draws latents of count items with; zeros without a seed."""
        if seed is None:
            return np.zeros((count, *self.noise_shape), np.float32)
        return await self._noise(seed, Stream.ENCODE, start_index, count)

    def check_latent_space(self, latent_space: str) -> None:
        """Raises LatentSpaceMismatch if latents of another one would be decoded."""
        own = self.version.manifest.latent_space
        if latent_space != own:
            raise LatentSpaceMismatch(
                f"the latents are of another latent space; {self.resource} has {own}"
            )

    def check_observations(self, observations: Float32, field: str = "observations") -> None:
        """Raises InvalidRequest of field if a value lies outside the model's range, which is
        finite; NaN does."""
        if observations.min() >= self._minimum and observations.max() <= self._maximum:
            return
        check_finite(observations, field)
        value_range = self.version.manifest.value_range
        text = f"expected values from {value_range.minimum:g} to {value_range.maximum:g}"
        raise InvalidRequest(f"{field}.data", text)

    def check_labels(self, labels: Iterable[int], field: str) -> None:
        """Raises InvalidRequest of field if a number is no label of the model."""
        count = len(self.version.manifest.labels)
        if not all(0 <= label < count for label in labels):
            raise InvalidRequest(field, f"expected numbers from 0 to {count - 1}")

    def check_codes(self, codes: NDArray[np.int64], field: str) -> None:
        """Raises InvalidRequest of field if a latent is no code of the model."""
        if codes.min() < 0 or codes.max() >= self.code_count:
            raise InvalidRequest(field, f"expected codes from 0 to {self.code_count - 1}")

    async def _encode(
        self,
        observations: Observations,
        seed: int | None,
        start_index: int,
        labels: Sequence[int],
        execution: Execution,
    ) -> Mapping[str, Float32]:
        count = len(observations)
        noise = await self.encoder_noise(seed, start_index, count)
        label = self._label(labels, count)
        graph, name = "encoder", "observations"
        if observations.dtype == np.uint8:
            graph, name = "encoder_uint8", LEVELS
        return await self.run(graph, {name: observations, "noise": noise, **label}, execution)

    async def _decode(self, inputs: Arrays, execution: Execution, uint8: bool) -> Observations:
        if not uint8:
            return (await self.run("decoder", inputs, execution))["observations"]
        return (await self.run("decoder_uint8", inputs, execution))[LEVELS]

    async def _noise(
        self, seed: int, stream: Stream, start_index: int, count: int, draws: int = 1
    ) -> Float32:
        """[count x draws, ...noise shape]: an item's draws are one long draw, cut."""
        size = draws * math.prod(self.noise_shape)

        def draw() -> Float32:
            noise = standard_normal(seed, stream, start_index, count, size)
            return noise.reshape(count * draws, *self.noise_shape)

        if count * size <= _DRAWN_AT_ONCE:
            return draw()
        # So many values take milliseconds, which nobody else shall wait for.
        return await run_on(self._drawing, draw)

    def _label(self, labels: Sequence[int], count: int) -> Arrays:
        names = self.version.manifest.labels
        if not names:
            if labels:
                raise InvalidRequest("labels", f"{self.resource} is not conditional; expected none")
            return {}
        check_label_count(labels, count)
        self.check_labels(labels, "labels")
        return {"label": np.broadcast_to(np.array(labels, np.int64), (count,))}


def check_label_count(labels: Sequence[int], items: int) -> None:
    """Raises InvalidRequest unless there is one label for all items or one for each."""
    if len(labels) not in (1, items):
        expected = f"1 or {items} labels" if items > 1 else "1 label"
        raise InvalidRequest("labels", f"expected {expected}, not {len(labels)}")


class _Answer(Completion[Arrays]):
    """The outputs of an entry."""

    __slots__ = ("entry",)
    entry: Entry

    def settle_from(self, entry: Entry) -> None:
        """Takes what the batcher made of the entry."""
        self.settle(entry.outputs, entry.error)

    def cancel(self) -> None:
        """Gives up, and tells the batcher."""
        self.entry.cancel()
        super().cancel()


class Models:
    """What is served, by resource name. Immutable."""

    def __init__(self, models: Sequence[Model], not_ready: Iterable[str] = ()) -> None:
        """not_ready: names of models that are to be served, and have no version loaded."""
        self.not_ready = frozenset(not_ready)
        self.all = tuple(
            sorted(models, key=lambda model: (model.version.name, model.version.version))
        )
        self._by_name = {model.resource: model for model in self.all}
        # Versions ascend, so the newest one stays as the default.
        self._by_name |= {f"models/{model.version.name}": model for model in self.all}

    def get(self, name: str, field: str = "model") -> Model:
        """The model that name stands for: "models/NAME" or "models/NAME/versions/N".

        Raises InvalidRequest (of field) for a name that cannot be one, ModelNotReady for one that
        is to be served but is not loaded, and ModelNotFound for any other.
        """
        model = self._by_name.get(name)
        if model is not None:
            return model
        if not name.startswith("models/"):
            raise InvalidRequest(field, 'expected "models/NAME" or "models/NAME/versions/N"')
        model_name, slash, version = name.removeprefix("models/").partition("/")
        if model_name in self.not_ready:
            raise ModelNotReady(f"model {model_name} is not loaded; the service's log says why")
        if slash:
            number = version.removeprefix("versions/")
            known = VERSION.fullmatch(number) and number != version
            what = f"version {number if known else 'of that number'} of model {shown(model_name)}"
        else:
            what = f"model {shown(model_name)}"
        raise ModelNotFound(f"no {what} is served; ListModels lists what is")

    def is_default(self, model: Model) -> bool:
        """Whether "models/NAME" stands for this version."""
        return self._by_name[f"models/{model.version.name}"] is model
