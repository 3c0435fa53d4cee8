"""The density of a linear-Gaussian model in closed form."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LinearGaussian:
    """x = W z + b + std * noise, with z and the noise standard normal: probabilistic PCA.

    `weight` W is [D, L], `bias` b [D], both float64 (Tipping & Bishop 1999; as the exact case of
    a VAE, Lucas et al. 2019). Observations of any shape are flattened to D.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    std: float

    def log_likelihood(self, observations: NDArray[np.generic]) -> NDArray[np.float64]:
        """ln p(x) [N] float64 in nats, for x ~ N(b, W W^T + std^2 I).

        Woodbury's identity brings it down to the L x L matrix M = W^T W + std^2 I:
        |W W^T + std^2 I| = |M| std^(2 (D - L)), and with c = x - b the quadratic form is
        (|c|^2 - (W^T c)^T M^-1 (W^T c)) / std^2.
        """
        dims, latent_size = self.weight.shape
        centered = observations.reshape(len(observations), -1).astype(np.float64) - self.bias
        cholesky = self._cholesky()
        projected = np.linalg.solve(cholesky, self.weight.T @ centered.T)
        quadratic = ((centered**2).sum(1) - (projected**2).sum(0)) / self.std**2
        log_determinant = 2 * np.log(np.diag(cholesky)).sum()
        log_determinant += 2 * (dims - latent_size) * math.log(self.std)
        likelihoods: NDArray[np.float64] = -0.5 * (
            dims * math.log(2 * math.pi) + log_determinant + quadratic
        )
        return likelihoods

    def posterior(
        self, observations: NDArray[np.generic]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The exact p(z given x): means [N, L], and the covariance [L, L] that all x share."""
        centered = observations.reshape(len(observations), -1).astype(np.float64) - self.bias
        inverse = np.linalg.inv(self._cholesky())
        precision_inverse = inverse.T @ inverse  # M^-1
        return centered @ self.weight @ precision_inverse, self.std**2 * precision_inverse

    def _cholesky(self) -> NDArray[np.float64]:
        gram = self.weight.T @ self.weight + self.std**2 * np.eye(self.weight.shape[1])
        return np.asarray(np.linalg.cholesky(gram), np.float64)
