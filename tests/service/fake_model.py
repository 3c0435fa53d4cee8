"""A model whose batchers answer at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from vae.manifest.v1 import manifest_pb2
from vae.v1 import tensor_pb2

from service.batching import Arrays, BatchingOptions, Entry
from service.completion import run
from service.errors import QueueFull
from service.execution import Execution
from service.model import Model
from service.repository import Graph, ModelVersion, Spec
from service.session import CPU

FLOAT32 = np.dtype(np.float32)
OBSERVATIONS = Spec("observations", FLOAT32, (3,))
LATENTS, MEAN, LOG_VARIANCE, NOISE = (
    Spec(name, FLOAT32, (2,)) for name in ("latents", "mean", "log_variance", "noise")
)


@dataclass
class FakeBatcher:
    """Answers with a function of the inputs, or an error, or not at all."""

    function: Callable[[Arrays], Arrays] | None
    error: QueueFull | None = None
    options: BatchingOptions = field(default_factory=lambda: BatchingOptions((1, 2, 4)))
    inputs: list[Arrays] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def submit(
        self,
        inputs: Arrays,
        items: int,
        on_done: Callable[[Entry], None],
        deadline: float | None = None,
        priority: int = 0,
    ) -> Entry:
        entry = Entry(inputs, items, deadline, on_done, 0.0, priority)
        self.inputs.append(inputs)
        self.entries.append(entry)
        if self.function is not None:
            entry.error = self.error
            entry.outputs = None if self.error else self.function(inputs)
            on_done(entry)
        return entry


def encoder(inputs: Arrays) -> Arrays:
    mean = inputs["observations"][:, :2]
    noise = inputs["noise"].reshape(mean.shape)
    return {"mean": mean, "log_variance": 0 * mean, "latents": mean + noise}


def decoder(inputs: Arrays) -> Arrays:
    return {"observations": inputs["latents"] * 10}


def prior(inputs: Arrays) -> Arrays:
    return {"latents": inputs["noise"] + 100}


class FakeModel:
    """A model with fakes for its batchers."""

    def __init__(
        self,
        labels: Sequence[str] = (),
        *,
        with_prior: bool = False,
        version: int = 1,
        name: str = "fake",
        noise: Spec = NOISE,
    ) -> None:
        self.encoder, self.decoder = FakeBatcher(encoder), FakeBatcher(decoder)
        self.prior = FakeBatcher(prior)
        batchers = {"encoder": self.encoder, "decoder": self.decoder}
        if with_prior:
            batchers["prior"] = self.prior
        label = (Spec("label", np.dtype(np.int64), ()),) if labels else ()
        graphs = {
            "encoder": Graph(
                "all.onnx", b"", (OBSERVATIONS, noise, *label), (LATENTS, MEAN, LOG_VARIANCE)
            ),
            "decoder": Graph("all.onnx", b"", (LATENTS, *label), (OBSERVATIONS,)),
            "prior": Graph("all.onnx", b"", (noise, *label), (LATENTS,)),
        }
        manifest = manifest_pb2.Manifest(
            observations=tensor_pb2.TensorSpec(
                data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[-1, 3]
            ),
            latents=tensor_pb2.TensorSpec(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[-1, 2]),
            labels=labels,
            latent_space="space",
            batch_buckets=[1, 2, 4],
            value_range=tensor_pb2.ValueRange(minimum=-1000, maximum=1000),
        )
        served = ModelVersion(name, version, manifest, "digest", graphs)
        self.model = Model(served, batchers, CPU)  # type: ignore[arg-type]

    def sample(
        self,
        count: int = 3,
        seed: int = 7,
        start: int = 0,
        temperature: float = 1.0,
        labels: Sequence[int] = (),
        deadline: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        drawn = self.model.sample(count, seed, start, temperature, labels, Execution(deadline))
        return run(drawn)

    def decode(
        self, latents: np.ndarray, space: str | None = None, labels: Sequence[int] = ()
    ) -> np.ndarray:
        return run(self.model.decode(latents, space, labels, Execution(None)))
