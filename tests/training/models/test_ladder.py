import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.models import LadderConfig, Layout
from training.models.ladder import Ladder

TINY = LadderConfig(channels=4, groups=(1, 2, 1), latent_channels=(3, 2, 1))


def build(shape: tuple[int, int, int] = (1, 8, 6), config: LadderConfig = TINY) -> Ladder:
    """A ladder whose priors and posteriors are no longer as they start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = config.build(Layout(shape))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def model() -> Ladder:
    return build()


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(5, 1, 8, 6, generator=torch.Generator().manual_seed(0)).round()


@pytest.fixture
def noise(model: Ladder) -> Tensor:
    return torch.randn(5, *model.noise_shape, generator=torch.Generator().manual_seed(1))


def test_groups_lie_side_by_side_from_the_coarsest_on(model: Ladder) -> None:
    shapes = [group.shape for group in model.groups]
    assert shapes == [(3, 1, 1), (2, 2, 2), (2, 2, 2), (1, 4, 3)]
    assert [group.name for group in model.groups] == ["1x1_0", "2x2_0", "2x2_1", "4x3_0"]
    assert model.groups[0].offset == 0
    for first, second in pairwise(model.groups):
        assert second.offset == first.offset + first.size
    assert model.latent_shape == (sum(math.prod(shape) for shape in shapes),)


def test_mnist_has_groups_of_1_7_and_14_pixels() -> None:
    sides = [group.shape[1:] for group in LadderConfig().build(Layout((1, 28, 28))).groups]
    assert sides == [(1, 1), (7, 7), (14, 14)]


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 5, 13), (1, 28, 28)])
def test_observations_of_any_size_come_back_at_their_size(shape: tuple[int, int, int]) -> None:
    model = build(shape)
    noise = torch.zeros(2, *model.noise_shape)
    latents, mean, log_variance = model.encode(torch.zeros(2, *shape), noise)
    assert latents.shape == mean.shape == log_variance.shape == noise.shape
    assert model.decode(latents).shape == (2, *shape)


def test_a_draw_of_the_posterior_is_its_mean_and_its_noise(
    model: Ladder, pixels: Tensor, noise: Tensor
) -> None:
    latents, mean, log_variance = model.encode(pixels, noise)
    torch.testing.assert_close(latents, mean + torch.exp(0.5 * log_variance) * noise)
    again = model.encode(pixels, noise)[0]
    assert torch.equal(latents, again)


def test_log_variance_is_bounded_and_finite_for_any_input(model: Ladder) -> None:
    wild = 1e4 * torch.randn(2, 1, 8, 6, generator=torch.Generator().manual_seed(0))
    log_variance = model.encode(wild, torch.zeros(2, *model.noise_shape))[2]
    assert log_variance.abs().max() <= 10


def test_a_group_depends_on_the_noise_of_no_later_one(
    model: Ladder, pixels: Tensor, noise: Tensor
) -> None:
    for group in model.groups:
        other = noise.clone()
        other[:, group.offset + group.size :] += 1
        end = group.offset + group.size
        assert torch.equal(
            model.encode(pixels, noise)[0][:, :end], model.encode(pixels, other)[0][:, :end]
        )
        assert torch.equal(model.sample_prior(noise)[:, :end], model.sample_prior(other)[:, :end])


def test_at_first_the_prior_is_standard_normal(noise: Tensor) -> None:
    fresh = TINY.build(Layout((1, 8, 6)))
    torch.testing.assert_close(fresh.sample_prior(noise), noise)


def test_log_weight_of_a_draw_is_prior_over_posterior_times_likelihood(
    model: Ladder, pixels: Tensor, noise: Tensor
) -> None:
    """The prior's density by the change of variables of `sample_prior`, which is triangular."""
    terms = model.elbo_terms(pixels, noise)
    latents, _, log_variance = model.encode(pixels, noise)
    inner = torch.zeros_like(noise)
    for group in model.groups:  # invert the ancestral sampling, group by group
        part = slice(group.offset, group.offset + group.size)
        at_zero = model.sample_prior(inner)[:, part]
        step = torch.zeros_like(inner)
        step[:, part] = 1
        std = model.sample_prior(inner + step)[:, part] - at_zero
        inner[:, part] = (latents[:, part] - at_zero) / std
    torch.testing.assert_close(model.sample_prior(inner), latents, atol=1e-4, rtol=1e-4)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: model.sample_prior(row[None])[0]))
    log_std = jacobian(inner).diagonal(dim1=1, dim2=2).log()
    standard = torch.distributions.Normal(0.0, 1.0)
    prior = (standard.log_prob(inner) - log_std).sum(1)
    posterior = (standard.log_prob(noise) - 0.5 * log_variance).sum(1)
    decoded = torch.distributions.Bernoulli(model.decode(latents))
    likelihood = decoded.log_prob(pixels).flatten(1).sum(1)
    torch.testing.assert_close(terms.distortion, -likelihood, atol=1e-4, rtol=1e-4)
    expected = prior + likelihood - posterior
    torch.testing.assert_close(terms.log_weight, expected, atol=1e-2, rtol=1e-4)


def test_the_rate_is_that_of_each_group_and_the_mean_of_the_log_ratios(
    model: Ladder, pixels: Tensor
) -> None:
    count = 20_000
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(count, *model.noise_shape, generator=generator)
    with torch.no_grad():
        terms = model.elbo_terms(pixels[:1].expand(count, -1, -1, -1), noise)
    assert terms.rate.shape == (count, len(model.groups))
    assert (terms.rate >= 0).all()
    drawn = -(terms.log_weight + terms.distortion)
    error = (drawn - terms.rate.sum(1)).std() / math.sqrt(count)
    assert drawn.mean().item() == pytest.approx(
        terms.rate.sum(1).mean().item(), abs=4 * error.item()
    )


def test_an_answer_does_not_depend_on_its_batch(
    model: Ladder, pixels: Tensor, noise: Tensor
) -> None:
    together = model.elbo_terms(pixels, noise)
    alone = model.elbo_terms(pixels[2:3], noise[2:3])
    for whole, part in zip(together[:3], alone[:3], strict=True):  # there is no auxiliary
        torch.testing.assert_close(whole[2:3], part)


def test_every_parameter_gets_a_gradient(model: Ladder, pixels: Tensor, noise: Tensor) -> None:
    terms = model.elbo_terms(pixels, noise)
    (terms.rate.sum() + terms.distortion.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"groups": (1,), "latent_channels": (1,)}, "two levels"),
        ({"groups": (1, 1), "latent_channels": (1,)}, "as many"),
        ({"groups": (1, 0), "latent_channels": (1, 1)}, "at least 1"),
        ({"bottleneck": 0.0}, "bottleneck"),
        ({"blocks": -1}, "blocks"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting: dict[str, object], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        LadderConfig(**setting)  # type: ignore[arg-type]


def test_more_levels_than_the_observation_has_are_refused() -> None:
    with pytest.raises(TrainingError, match="to nothing"):
        TINY.build(Layout((1, 2, 2)))


class Method(nn.Module):
    """A method of a model as a module of its own, to be traced."""

    def __init__(self, model: Ladder, method: Callable[..., object]) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *inputs: Tensor) -> object:
        answer = self.method(*inputs)
        if not isinstance(answer, tuple):
            return answer
        return tuple(part for part in answer if part is not None)


# A trace warns of what torch itself has deprecated, and of one axis in several inputs.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*The axis name:UserWarning")
@pytest.mark.parametrize("method", ["encode", "sample_prior", "decode", "elbo_terms"])
def test_onnxruntime_agrees_with_each_method_at_any_batch(method: str) -> None:
    shape = (1, 9, 7)
    model = build(shape)
    traced = Method(model, getattr(model, method)).eval()

    def inputs(batch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(batch)
        pixels = torch.rand(batch, *shape, generator=generator).round()
        flat = torch.randn(batch, *model.noise_shape, generator=generator)
        return (pixels, flat) if method in ("encode", "elbo_terms") else (flat,)

    axis = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        traced,
        inputs(2),
        dynamo=True,
        verbose=False,
        dynamic_shapes=(tuple({0: axis} for _ in inputs(2)),),
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for batch in (1, 2, 3):
        values = inputs(batch)
        names = [value.name for value in session.get_inputs()]
        feeds = {n: v.numpy() for n, v in zip(names, values, strict=True)}
        with torch.no_grad():
            expected = traced(*values)
        for got, want in zip(
            session.run(None, feeds),
            expected if isinstance(expected, tuple) else (expected,),
            strict=True,
        ):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-4)
