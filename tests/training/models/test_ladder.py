import pytest
import torch

from training.errors import TrainingError
from training.models import LadderConfig, Layout
from training.models.ladder import Ladder

CONFIG = LadderConfig(groups=(1, 2, 1), latent_channels=(3, 2, 1), width=8, bottleneck=4)


def model(height: int = 8, width: int = 8, config: LadderConfig = CONFIG) -> Ladder:
    """One whose priors and posteriors differ, as after a fit."""
    torch.manual_seed(0)
    made = config.build(Layout((1, height, width))).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def observations(count: int = 5, height: int = 8, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, height, width, generator=generator).round()


def noise(made: Ladder, count: int = 5) -> torch.Tensor:
    return torch.randn(count, *made.noise_shape, generator=torch.Generator().manual_seed(2))


def test_groups_lie_one_behind_the_other() -> None:
    made = model()
    assert [group.shape for group in made.groups] == [(3, 1, 1), (2, 2, 2), (2, 2, 2), (1, 4, 4)]
    assert [group.offset for group in made.groups] == [0, 3, 11, 19]
    assert made.latent_shape == made.noise_shape == (35,)


def test_the_rate_comes_by_group_and_is_never_negative() -> None:
    made = model()
    terms = made.elbo_terms(observations(), noise(made))
    assert terms.rate.shape == (5, 4)
    assert (terms.rate > 0).all()


def test_the_importance_weight_is_the_bound_on_average() -> None:
    made = model()
    count = 4000
    seen = observations(1).expand(count, -1, -1, -1)
    with torch.no_grad():
        terms = made.elbo_terms(seen, noise(made, count))
    bound = -(terms.rate.sum(1) + terms.distortion)
    error = terms.log_weight.std() / count**0.5 + bound.std() / count**0.5
    assert abs(terms.log_weight.mean() - bound.mean()) < 4 * error


def test_latents_decode_to_what_the_terms_were_computed_from() -> None:
    made = model()
    latents, mean, log_variance = made.encode(observations(), noise(made))
    assert mean.shape == log_variance.shape == latents.shape == (5, 35)
    torch.testing.assert_close(latents, mean + torch.exp(0.5 * log_variance) * noise(made))
    probabilities = made.decode(latents)
    seen = observations()
    likelihoods = seen * probabilities + (1 - seen) * (1 - probabilities)
    terms = made.elbo_terms(seen, noise(made))
    torch.testing.assert_close(-likelihoods.log().flatten(1).sum(1), terms.distortion)


def test_a_group_depends_on_those_above_it_only() -> None:
    made = model()
    first = noise(made, 1)
    second = first.clone()
    second[:, made.groups[2].offset :] += 1
    with torch.no_grad():
        one, other = made.sample_prior(first), made.sample_prior(second)
    changed = (one != other)[0]
    assert not changed[: made.groups[2].offset].any()
    assert changed[made.groups[2].offset :].all()


def test_fresh_priors_are_standard_normal() -> None:
    torch.manual_seed(0)
    made = CONFIG.build(Layout((1, 8, 8))).eval()
    drawn = noise(made)
    torch.testing.assert_close(made.sample_prior(drawn), drawn)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (28, 28), (9, 14), (6, 5)])
def test_any_size_will_do(height: int, width: int) -> None:
    made = model(height, width)
    seen = observations(2, height, width)
    assert made.elbo_terms(seen, noise(made, 2)).distortion.shape == (2,)
    assert made.decode(made.sample_prior(noise(made, 2))).shape == (2, 1, height, width)


def test_an_item_does_not_depend_on_its_batch() -> None:
    made = model()
    with torch.no_grad():
        together = made.decode(made.sample_prior(noise(made)))
        alone = made.decode(made.sample_prior(noise(made)[2:3]))
    torch.testing.assert_close(together[2:3], alone)


def test_an_observation_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(TrainingError, match="halve 2x2 pixels to nothing"):
        CONFIG.build(Layout((1, 2, 2)))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"groups": (1, 0)}, "model.groups must be at least 1"),
        ({"groups": (1,)}, "at least two stages"),
        ({"latent_channels": (1, 1)}, "one number for each stage"),
    ],
)
def test_settings_that_fit_no_ladder_are_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(TrainingError, match=match):
        LadderConfig(**settings)  # type: ignore[arg-type]
