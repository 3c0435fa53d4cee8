"""The models that are measured: fresh seeded weights, exported as `python -m export` would.

How fast a graph runs does not depend on its weights, so nothing is trained.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks.errors import BenchmarkError
from export.checks import check_graph
from export.graphs import Precision, trace_graphs
from export.manifest import build_manifest, describe_graph, manifest_json
from export.measurements import add_measurements
from export.parity import measure
from export.precision import convert
from export.publish import publish
from training.checkpoint import Run
from training.config import FitConfig
from training.model import Layout
from training.models import ConvConfig, MlpConfig, Vae

_SEED = 20131220


@dataclass(frozen=True)
class BenchModel:
    """A model to measure: its name in the repository, its architecture and its observations."""

    name: str
    config: MlpConfig | ConvConfig
    observation_shape: tuple[int, int, int]

    @property
    def latent_size(self) -> int:
        """Floats of one request item."""
        return self.config.latent_size

    @property
    def observation_size(self) -> int:
        """Floats of one response item."""
        return math.prod(self.observation_shape)

    @property
    def decoder(self) -> str:
        """The decoder's name in the Open Inference Protocol."""
        return f"{self.name}.decoder"


MLP = BenchModel(
    "mlp",
    MlpConfig(latent_size=20, hidden_sizes=(400, 400), activation="silu"),
    (1, 28, 28),
)
CONV = BenchModel(
    "conv",
    ConvConfig(latent_size=64, hidden_sizes=(), channels=(32, 64, 128, 256), activation="silu"),
    (3, 64, 64),
)
MODELS = (MLP, CONV)


def decoder_file(repository: Path, model: BenchModel) -> Path:
    """The ONNX file that every peer loads."""
    return repository / model.name / "1" / "decoder.onnx"


def largest_batch(repository: Path, model: BenchModel) -> int:
    """Items of the largest batch that the model was published with."""
    manifest = json.loads((repository / model.name / "1" / "manifest.json").read_text())
    return int(manifest["batchBuckets"][-1])


def build_repository(
    repository: Path, models: Sequence[BenchModel] = MODELS, precisions: Sequence[Precision] = ()
) -> None:
    """Publish version 1 of the models, in float32 and in precisions; what is there already stays.

    Raises BenchmarkError if a graph does not keep the bounds of a precision.
    """
    for model in models:
        if not decoder_file(repository, model).exists():
            _publish(repository, model, precisions)


def multiply_adds(model: Vae) -> int:
    """Multiply-adds of decoding one item, in the dense and the transposed convolutional layers."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += module.in_features * module.out_features
        elif isinstance(module, nn.ConvTranspose2d):
            # Every input pixel meets the whole kernel; padding cuts off what this counts too much.
            taps = math.prod(module.kernel_size) // math.prod(module.stride)
            total += output[0].numel() * module.in_channels * taps

    hooks = [layer.register_forward_hook(count) for layer in model.decoder.modules()]
    with torch.inference_mode():
        model.decode(torch.zeros(1, *model.latent_shape))
    for hook in hooks:
        hook.remove()
    return total


def fresh_model(model: BenchModel) -> Vae:
    """The model in eval mode; the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        return model.config.build(Layout(model.observation_shape)).eval()


def _publish(repository: Path, model: BenchModel, precisions: Sequence[Precision]) -> None:
    vae = fresh_model(model)
    digest = hashlib.sha256(safetensors.torch.save(vae.state_dict())).hexdigest()
    config = FitConfig(f"bench-{model.name}", model=model.config)
    run = Run(repository, config, vae, digest, dataset_sha256="", metrics={})
    graphs = trace_graphs(vae, model.name, config.preset)
    for graph in graphs:
        check_graph(graph)
    random = np.random.default_rng(_SEED)
    observations = random.random((64, *model.observation_shape), dtype=np.float32)
    description = build_manifest(run, graphs, measure(graphs, observations), model.name, 0)
    files = {graph.file: graph.content for graph in graphs}
    add_measurements(description, files)
    # What weights that nobody has fitted score is beyond the bounds of another precision.
    others = tuple(graph for graph in graphs if not graph.kind.startswith("scorer"))
    for precision in precisions:
        variants = convert(others, precision, observations, None)
        if variants.refusals:
            raise BenchmarkError(f"{model.name} in {precision}: {dict(variants.refusals)}")
        files |= {graph.file: graph.content for graph in variants.graphs}
        description.graphs.extend(
            describe_graph(graph, variants.parity[graph.kind], variants.elbo)
            for graph in variants.graphs
        )

    def manifest(version: int) -> bytes:
        description.version = version
        return manifest_json(description)

    publish(repository, model.name, files, manifest)
