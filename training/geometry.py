"""Ways through a latent space: straight lines, arcs, and its principal axes."""

import torch
from torch import Tensor

_SMALL_ANGLE = 1e-2  # where float32 has few digits of the angle left, and both paths agree


def lerp(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """The straight line between latents of one shape, both ends included: [steps, *shape]."""
    shares = torch.linspace(0, 1, steps, device=first.device).view(-1, *[1] * first.dim())
    return (1 - shares) * first + shares * second


def slerp(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """The arc between latents of one shape, both ends included: [steps, *shape].

    Spherical interpolation (Shoemake 1985; White 2016) over all dims as one vector: it keeps the
    norm that a draw from a normal prior in many dims has, where the straight line is shorter. At
    small angles, with a zero vector, and between opposite ones, which no one arc joins, `lerp`.
    """
    norms = first.norm() * second.norm()
    cosine = (first * second).sum() / norms if norms > 0 else torch.ones_like(norms)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    if sine < _SMALL_ANGLE:
        return lerp(first, second, steps)
    shares = torch.linspace(0, 1, steps, device=first.device).view(-1, *[1] * first.dim())
    return (torch.sin((1 - shares) * angle) * first + torch.sin(shares * angle) * second) / sine


def principal_components(points: Tensor, count: int = 2) -> tuple[Tensor, Tensor]:
    """Points [N, L] on their first principal axes: [N, count], and the shares [count] of variance.

    By singular value decomposition. Axes beyond min(N, L) are zero. An axis points to where its
    largest entry is positive, so that the picture does not flip.
    """
    centred = points.double() - points.double().mean(0)
    _, scales, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:count]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    projected = centred @ (axes * largest.sign()).T
    variances = scales.square()
    shares = variances[:count] / variances.sum().clamp_min(torch.finfo(torch.float64).tiny)
    missing = count - len(axes)
    pad = torch.nn.functional.pad
    return pad(projected, (0, missing)).float(), pad(shares, (0, missing)).float()
