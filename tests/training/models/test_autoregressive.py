import pytest
import torch

from tests.training.models.heeding import heeding
from training.config import FitConfig
from training.data import Dataset
from training.errors import TrainingError
from training.fit import Fitted, fit
from training.models import AutoregressiveConfig, Layout
from training.models.autoregressive import AutoregressiveVae
from training.models.pixelcnn import logistic
from training.objectives import ObjectiveConfig, check_objective

LAYOUT = Layout((1, 4, 5))


@pytest.fixture
def model() -> AutoregressiveVae:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return heeding(AutoregressiveConfig(3, (8,), channels=6, layers=2, kernel=3).build(LAYOUT))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(6, 1, 4, 5, generator=torch.Generator().manual_seed(0)).round()


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


def test_the_likelihoods_of_all_images_sum_to_1() -> None:
    torch.manual_seed(0)
    model = AutoregressiveConfig(2, (), channels=4, layers=1).build(Layout((1, 2, 3)))
    torch.nn.init.normal_(model.offset)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).view(64, 1, 2, 3)
    latents = torch.ones(1, 2).expand(64, 2)
    total = torch.exp(-model.distortion(images, latents)).sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_log_weight_is_the_density_ratio_of_its_draw(
    model: AutoregressiveVae, pixels: torch.Tensor, noise: torch.Tensor
) -> None:
    terms = model.eval().elbo_terms(pixels, noise)
    latents, mean, log_variance = model.encode(pixels, noise)
    posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    ratio = (prior.log_prob(latents) - posterior.log_prob(latents)).sum(1)
    torch.testing.assert_close(terms.log_weight, ratio - model.distortion(pixels, latents))
    divergence = torch.distributions.kl_divergence(posterior, prior)
    torch.testing.assert_close(terms.rate, divergence)
    assert terms.auxiliary is None


def test_an_answer_does_not_depend_on_its_batch(
    model: AutoregressiveVae, pixels: torch.Tensor, noise: torch.Tensor
) -> None:
    together = model.eval().elbo_terms(pixels, noise).log_weight
    alone = [model.elbo_terms(pixels[i : i + 1], noise[i : i + 1]).log_weight for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(model.decode(noise)[:1], model.decode(noise[:1]))


def test_a_draw_is_the_threshold_of_its_own_probabilities(
    model: AutoregressiveVae, noise: torch.Tensor
) -> None:
    torch.nn.init.normal_(model.offset)
    generator = torch.Generator().manual_seed(2)
    uniform = logistic(torch.randn(6, 4, 5, generator=generator))
    drawn = model.draw(noise, uniform)
    assert torch.equal(drawn, model.draw(noise, uniform))
    logits = model.pixelcnn(drawn, model.decoder(noise)) + model.offset
    assert torch.equal(drawn, (logits + uniform[:, None] > 0).float())


def test_what_is_decoded_are_probabilities_that_follow_the_latents(
    model: AutoregressiveVae, noise: torch.Tensor
) -> None:
    decoded = model.decode(noise)
    assert decoded.shape == (6, 1, 4, 5)
    assert decoded.min() > 0
    assert decoded.max() < 1
    assert not torch.equal(decoded[0], decoded[1])


def test_without_a_map_every_pixel_is_told_the_latents_alone(noise: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = AutoregressiveConfig(3, (8,), channels=6, layers=1, kernel=3, map_channels=0)
    model = heeding(config.build(Layout((1, 12, 12))))
    logits = model.pixelcnn(torch.zeros(6, 1, 12, 12), model.decoder(noise))[:, 0]
    inner = logits[:, 4:, 4:-4]  # where no padding is seen, positions cannot be told apart
    torch.testing.assert_close(inner, inner[:, :1, :1].expand_as(inner))
    assert not torch.equal(inner[0], inner[1])
    assert model.decode(noise).shape == (6, 1, 12, 12)


@pytest.fixture
def hiding() -> AutoregressiveVae:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoregressiveConfig(3, (8,), channels=6, layers=2, input_dropout=0.25)
        return heeding(config.build(LAYOUT))


def test_of_hidden_pixels_the_decoder_knows_the_mean_alone(
    hiding: AutoregressiveVae, pixels: torch.Tensor, noise: torch.Tensor
) -> None:
    hidden = torch.zeros(6, 20, dtype=torch.bool)
    hidden[:, 3:9] = True
    pixel_noise = torch.where(hidden, -0.7, -0.6)  # the quantile of 0.25 is -0.674
    terms = hiding.elbo_terms(pixels, torch.cat([noise, pixel_noise], 1))

    given = pixels.masked_fill(hidden.view_as(pixels), 0.5)
    logits = hiding.pixelcnn(given, hiding.decoder(hiding.encode(pixels, noise)[0]))
    torch.testing.assert_close(terms.distortion, hiding.likelihood.distortion(logits, pixels))
    assert torch.equal(terms.rate, hiding.elbo_terms(pixels, noise).rate)


def test_what_is_no_fit_hides_nothing(
    hiding: AutoregressiveVae, pixels: torch.Tensor, noise: torch.Tensor
) -> None:
    latents, _, _ = hiding.encode(pixels, noise)
    terms = hiding.elbo_terms(pixels, noise)
    assert torch.equal(terms.distortion, hiding.distortion(pixels, latents))


def test_a_fit_hides_by_its_seed(binary_dataset: Dataset) -> None:
    def fitted(dropout: float) -> Fitted:
        model = AutoregressiveConfig(2, (4,), channels=4, layers=0, input_dropout=dropout)
        config = FitConfig("tiny", model=model, epochs=2, batch_size=8, seed=1)
        return fit(config, binary_dataset)

    first, again, all_given = fitted(0.5), fitted(0.5), fitted(0.0)
    assert first.history[-1]["train_distortion"] == again.history[-1]["train_distortion"]
    assert first.history[-1]["train_distortion"] != all_given.history[-1]["train_distortion"]


def test_an_objective_that_draws_its_own_noise_hides_nothing(hiding: AutoregressiveVae) -> None:
    with pytest.raises(TrainingError, match=r"importance hides no pixels.*model\.input_dropout"):
        check_objective(ObjectiveConfig(name="importance", samples=2), hiding)


def test_it_starts_at_the_mean_of_the_data(model: AutoregressiveVae) -> None:
    mean = torch.linspace(0.1, 0.9, 20).view(1, 4, 5)
    last = model.pixelcnn.output[-1]
    assert isinstance(last, torch.nn.Conv2d)
    torch.nn.init.zeros_(last.weight)
    assert last.bias is not None
    torch.nn.init.zeros_(last.bias)
    model.initialize_output(mean)
    torch.testing.assert_close(model.decode(torch.zeros(1, 3))[0], mean)


def test_it_refuses_colours_and_numbers_that_are_no_pixels() -> None:
    for layout in (Layout((3, 4, 4)), Layout((1, 1, 8), maximum=None)):
        with pytest.raises(TrainingError, match="pixels of one channel"):
            AutoregressiveConfig().build(layout)


@pytest.mark.parametrize(
    "setting",
    [{"kernel": 2}, {"layers": -1}, {"map_channels": -1}, {"input_dropout": 1.0}],
)
def test_a_setting_that_makes_no_sense_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=next(iter(setting))):
        AutoregressiveConfig(**setting)  # type: ignore[arg-type]
