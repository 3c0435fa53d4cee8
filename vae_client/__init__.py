"""Calls a VAE service: numpy in, numpy out.

    from vae_client import VaeClient

    with VaeClient("localhost:8500") as client:
        drawn = client.sample("digits", 16, seed=7)
        posterior = client.encode("digits", drawn.observations)
        decoded = client.decode("digits", posterior.mean, latent_space=posterior.latent_space)

`AsyncVaeClient` has the same methods for asyncio. A failed call raises `VaeError`.
"""

from vae_client.aio import AsyncVaeClient
from vae_client.client import VaeClient
from vae_client.errors import VaeError
from vae_client.messages import Decoded, Explored, Posterior, Samples, Scores

__all__ = [
    "AsyncVaeClient",
    "Decoded",
    "Explored",
    "Posterior",
    "Samples",
    "Scores",
    "VaeClient",
    "VaeError",
]
