"""Named configurations. Each says which number its fit must reach on the test split."""

from dataclasses import dataclass

from training.config import DataConfig, FitConfig, ModelConfig


@dataclass(frozen=True)
class Preset:
    """A configuration, what it is for, and the number that it must reach.

    negative_elbo: at most this, in nats per item on the test split. A Gaussian likelihood is a
    density, so its bound may be below zero. `active_units`: at least so many.
    """

    config: FitConfig
    description: str
    negative_elbo: float
    active_units: int


def presets() -> dict[str, Preset]:
    """All presets by name."""
    digits = DataConfig("digits")
    mnist = DataConfig("mnist")
    dense = ModelConfig("mlp", latent_size=50, hidden_sizes=(200, 200))
    conv = ModelConfig(
        "conv", latent_size=32, hidden_sizes=(256,), channels=(32, 64), activation="silu"
    )
    listed = [
        Preset(
            FitConfig(
                "digits-mlp-vae",
                digits,
                ModelConfig("mlp", latent_size=8, hidden_sizes=(256, 128), activation="silu"),
                epochs=300,
                batch_size=100,
                evaluate_every=25,
            ),
            "8x8 digits, dense layers, Bernoulli: the demo, under a minute on two cores",
            23.0,
            7,
        ),
        Preset(
            FitConfig(
                "digits-conv-vae",
                digits,
                ModelConfig(
                    "conv", latent_size=8, hidden_sizes=(128,), channels=(32, 64), activation="silu"
                ),
                epochs=150,
                batch_size=100,
                evaluate_every=25,
            ),
            "8x8 digits, convolutions, Bernoulli",
            23.2,
            6,
        ),
        Preset(
            FitConfig(
                "digits-mlp-gaussian",
                digits,
                ModelConfig(
                    "mlp",
                    latent_size=16,
                    hidden_sizes=(256, 128),
                    likelihood="gaussian",
                    activation="silu",
                ),
                epochs=300,
                batch_size=100,
                evaluate_every=25,
            ),
            "8x8 digits, dense layers, Gaussian with a learned standard deviation",
            -29.5,
            11,
        ),
        Preset(
            FitConfig("mnist-mlp-vae", mnist, dense, epochs=60, batch_size=100, evaluate_every=5),
            "28x28 MNIST, 784-200-200-50 tanh (Burda et al. 2016), Bernoulli",
            96.0,
            17,
        ),
        Preset(
            FitConfig("mnist-conv-vae", mnist, conv, epochs=20, batch_size=100, evaluate_every=2),
            "28x28 MNIST, convolutions, Bernoulli",
            91.0,
            25,
        ),
        Preset(
            FitConfig(
                "mnist-conv-gaussian",
                mnist,
                ModelConfig(
                    "conv",
                    latent_size=32,
                    hidden_sizes=(256,),
                    channels=(32, 64),
                    likelihood="gaussian",
                    activation="silu",
                ),
                epochs=8,
                batch_size=100,
                evaluate_every=2,
            ),
            "28x28 MNIST, convolutions, Gaussian with a learned standard deviation",
            -770.0,
            30,
        ),
    ]
    return {preset.config.preset: preset for preset in listed}
