"""What is set from the training split before a model is evaluated or kept."""

import math

import torch

from training.batches import Batches
from training.likelihoods import Gaussian
from training.model import Model

_FREEZE_ITEMS = 10_000
_CHUNK = 500


@torch.no_grad()
def freeze_variance(model: Model, batches: Batches, seed: int) -> None:
    """Set the variance of an "optimal" Gaussian to its value on the training split."""
    likelihood = getattr(model, "likelihood", None)
    if not isinstance(likelihood, Gaussian) or likelihood.kind != "optimal":
        return
    training = model.training
    model.eval()
    generator = torch.Generator(batches.observations.device).manual_seed(seed)
    count = min(len(batches), _FREEZE_ITEMS)
    total = torch.zeros((), dtype=torch.float64)
    device = batches.observations.device
    for start in range(0, count, _CHUNK):
        indices = torch.arange(start, min(count, start + _CHUNK), device=device)
        observations, label = batches.draw(indices, generator, share=False)
        shape = (len(observations), *model.noise_shape)
        noise = torch.randn(shape, generator=generator, device=observations.device)
        decoded = model.decode(model.encode(observations, noise, label)[0], label)
        total += (observations - decoded).square().double().sum().cpu()
    likelihood.freeze((total / (count * math.prod(model.observation_shape))).float())
    model.train(training)
