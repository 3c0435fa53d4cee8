import pytest
import torch

from tests.training.models.heeding import heeding
from training.models.pixelcnn import GatedPixelCnn, gumbel, logistic

HEIGHT, WIDTH = 4, 5


@pytest.fixture
def pixelcnn() -> GatedPixelCnn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return heeding(GatedPixelCnn(3, True, HEIGHT, WIDTH, 8, layers=5, condition_size=2))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_position_knows_all_before_it_and_nothing_else(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    pixelcnn = GatedPixelCnn(1, False, HEIGHT, WIDTH, channels=8, layers=5)
    pixels = torch.rand(1, 1, HEIGHT, WIDTH, generator=generator, requires_grad=True)
    logits = pixelcnn(pixels).flatten()
    for position in range(HEIGHT * WIDTH):
        (gradient,) = torch.autograd.grad(logits[position], pixels, retain_graph=True)
        seen = gradient.flatten() != 0
        assert seen.tolist() == [before < position for before in range(HEIGHT * WIDTH)]


def test_a_small_kernel_without_layers_sees_its_neighbours_alone() -> None:
    torch.manual_seed(0)
    pixelcnn = GatedPixelCnn(1, False, HEIGHT, WIDTH, channels=8, layers=0, kernel=1)
    pixels = torch.rand(1, 1, HEIGHT, WIDTH).requires_grad_()
    (gradient,) = torch.autograd.grad(pixelcnn(pixels)[0, 0, 2, 2], pixels)
    assert gradient[0, 0].nonzero().tolist() == [[1, 2], [2, 1]]


def test_a_fresh_one_does_not_heed_its_condition_but_learns_to(
    generator: torch.Generator,
) -> None:
    pixelcnn = GatedPixelCnn(1, False, HEIGHT, WIDTH, channels=8, layers=1, condition_size=2)
    pixels = torch.rand(2, 1, HEIGHT, WIDTH, generator=generator)
    logits = pixelcnn(pixels, torch.randn(2, 2, generator=generator))
    assert torch.equal(logits, pixelcnn(pixels, torch.zeros(2, 2)))
    logits.sum().backward()
    assert pixelcnn.first.condition is not None
    assert pixelcnn.first.condition.weight.grad is not None
    assert pixelcnn.first.condition.weight.grad.any()


def test_logits_follow_the_condition_as_a_vector_and_as_a_map(
    pixelcnn: GatedPixelCnn, generator: torch.Generator
) -> None:
    codes = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.int64)
    condition = torch.randn(2, 2, generator=generator)
    by_vector = pixelcnn(codes, condition)
    by_map = pixelcnn(codes, condition[:, :, None, None].expand(-1, -1, HEIGHT, WIDTH))
    assert by_vector.shape == (2, 3, HEIGHT, WIDTH)
    assert not torch.equal(by_vector[0], by_vector[1])
    torch.testing.assert_close(by_vector, by_map)


def test_a_sample_is_the_argmax_of_its_own_logits_and_noise(
    pixelcnn: GatedPixelCnn, generator: torch.Generator
) -> None:
    noise = gumbel(torch.randn(4, HEIGHT, WIDTH, 3, generator=generator))
    condition = torch.randn(4, 2, generator=generator)
    codes = pixelcnn.sample(noise, condition)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, pixelcnn.sample(noise, condition))
    logits = pixelcnn(codes, condition)
    assert torch.equal(codes, (logits + noise.permute(0, 3, 1, 2)).argmax(1))


def test_a_binary_sample_is_the_sign_of_its_own_logit_and_noise(
    generator: torch.Generator,
) -> None:
    torch.manual_seed(0)
    pixelcnn = GatedPixelCnn(1, False, HEIGHT, WIDTH, channels=8, layers=1)
    noise = logistic(torch.randn(4, HEIGHT, WIDTH, 1, generator=generator))
    codes = pixelcnn.sample(noise)
    logits = pixelcnn(codes[:, None].float())
    assert torch.equal(codes, ((logits[:, 0] + noise[..., 0]) > 0).long())


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("condition_shape", [None, (2,), (2, HEIGHT, WIDTH)])
@pytest.mark.parametrize(("categories", "embedding"), [(3, True), (3, False), (1, False)])
def test_a_sample_is_the_one_that_whole_passes_draw_position_by_position(
    kernel: int,
    layers: int,
    condition_shape: tuple[int, ...] | None,
    categories: int,
    embedding: bool,
    generator: torch.Generator,
) -> None:
    torch.manual_seed(0)
    size = condition_shape[0] if condition_shape else 0
    pixelcnn = heeding(
        GatedPixelCnn(
            categories, embedding, HEIGHT, WIDTH, 4, layers, condition_size=size, kernel=kernel
        )
    )
    noise = torch.randn(3, HEIGHT, WIDTH, categories, generator=generator)
    condition = None
    if condition_shape:
        condition = torch.randn(3, *condition_shape, generator=generator)
    wanted = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.int64)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            inputs = wanted if embedding else wanted[:, None].float() / max(1, categories - 1)
            scores = pixelcnn(inputs, condition)[:, :, row, column] + noise[:, row, column]
            is_binary = categories == 1
            wanted[:, row, column] = (scores[:, 0] > 0) if is_binary else scores.argmax(1)
    assert torch.equal(pixelcnn.sample(noise, condition), wanted)


def test_noise_has_the_moments_of_its_distribution(generator: torch.Generator) -> None:
    noise = torch.randn(200_000, generator=generator)
    assert gumbel(noise).mean().item() == pytest.approx(0.5772, abs=0.02)
    assert gumbel(noise).var().item() == pytest.approx(1.6449, abs=0.05)
    assert logistic(noise).mean().item() == pytest.approx(0, abs=0.02)
    assert logistic(noise).var().item() == pytest.approx(3.2899, abs=0.1)
    assert torch.isfinite(gumbel(torch.tensor([-40.0, 40.0]))).all()


# A trace warns of what torch itself has deprecated, and of one axis in several inputs.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*The axis name:UserWarning")
def test_sampling_is_traced_to_one_row_and_no_random_operator() -> None:
    pixelcnn = GatedPixelCnn(3, True, 2, 2, channels=4, layers=1)

    class Sampling(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixelcnn = pixelcnn

        def forward(self, noise: torch.Tensor) -> torch.Tensor:
            return self.pixelcnn.sample(gumbel(noise))

    with torch.no_grad():
        program = torch.onnx.export(
            Sampling().eval(),
            (torch.zeros(3, 2, 2, 3),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: "batch"},),
        )
    assert program is not None
    operators = [node.op_type for node in program.model.graph]
    assert operators.count("Scan") == 1
    assert not [name for name in operators if name.startswith(("Random", "Bernoulli", "Multi"))]
    assert not {"Loop", "If"} & set(operators)
