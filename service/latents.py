"""Ways through the latent space, on arrays."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
_FLAT = 1e-4  # radians, below which the great circle is a straight line in float32


def interpolate(start: Float32, end: Float32, steps: int, *, spherical: bool) -> Float32:
    """The points [items x steps, *shape] from start to end, [items, *shape] each, item by item.

    Linear: (1 - t) a + t b. Spherical: the direction goes along the great circle from a to b
    (Shoemake 1985) and the norm from |a| to |b|, which stays what a Gaussian prior expects, where
    a straight line comes closer to the origin; linear where the angle between a and b is 0 or pi,
    or one of them is the origin.
    """
    a = start.reshape(len(start), 1, -1).astype(np.float64)
    b = end.reshape(len(end), 1, -1).astype(np.float64)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    of_a, of_b = 1 - t, t
    if spherical:
        norm_a, norm_b = (np.linalg.norm(x, axis=2, keepdims=True) for x in (a, b))
        norms = np.where(norm_a * norm_b > 0, norm_a * norm_b, 1)
        cosine = np.where(norm_a * norm_b > 0, (a * b).sum(2, keepdims=True) / norms, 1)
        angle = np.arccos(np.clip(cosine, -1, 1))
        round_ = (angle > _FLAT) & (angle < np.pi - _FLAT)
        norm = ((1 - t) * norm_a + t * norm_b) / np.where(round_, np.sin(angle), 1)
        of_a = np.where(round_, np.sin((1 - t) * angle) * norm / np.where(round_, norm_a, 1), of_a)
        of_b = np.where(round_, np.sin(t * angle) * norm / np.where(round_, norm_b, 1), of_b)
    way = (of_a * a + of_b * b).astype(np.float32)
    way[:, 0], way[:, -1] = a[:, 0], b[:, 0]  # the ends as they came, to the bit
    return way.reshape(-1, *start.shape[1:])


def traverse(latents: Float32, unit: int, minimum: float, maximum: float, steps: int) -> Float32:
    """Latents [items x steps, *shape], item by item: [items, *shape] with one unit of their values
    in row-major order going evenly from minimum to maximum, both included."""
    ways = np.repeat(latents.reshape(len(latents), 1, -1), steps, axis=1)
    ways[:, :, unit] = np.linspace(minimum, maximum, steps, dtype=np.float32)
    return ways.reshape(-1, *latents.shape[1:])
