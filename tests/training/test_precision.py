"""In what numbers products are computed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from training.models import convolutions, layers
from training.models.quantizer import Quantizer
from training.precision import (
    Precision,
    Setting,
    exact,
    mixed,
    precision_for,
    rounded_products,
)

HERE = precision_for("auto", "cpu")
rounds = pytest.mark.skipif(HERE == "float32", reason="a CPU without instructions for bfloat16")


@pytest.mark.parametrize(
    ("setting", "device", "instructions", "expected"),
    [
        ("auto", "cpu", True, "bfloat16"),
        ("auto", "cpu", False, "float32"),
        ("auto", "cuda", True, "float32"),
        ("float32", "cpu", True, "float32"),
        ("bfloat16", "cpu", False, "bfloat16"),
        ("bfloat16", "cuda", False, "bfloat16"),
    ],
)
@pytest.mark.parametrize("which", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_auto_is_bfloat16_where_a_cpu_has_it(
    setting: Setting,
    device: str,
    instructions: bool,
    expected: str,
    which: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        there = instructions and name == which
        monkeypatch.setattr(torch.cpu, name, lambda there=there: there)
    assert precision_for(setting, device) == expected


@pytest.fixture
def factors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 64, generator=generator), torch.randn(64, 64, generator=generator)


def error(product: Tensor, factors: tuple[Tensor, Tensor]) -> float:
    return float((product.double() - factors[0].double() @ factors[1].double()).abs().max())


@rounds
def test_products_are_rounded_where_that_is_asked_for_and_nowhere_else(
    factors: tuple[Tensor, Tensor],
) -> None:
    first, second = factors
    with rounded_products("bfloat16"):
        rounded = first @ second
        with exact("cpu"):
            within = first @ second
        after = first @ second
    with rounded_products("float32"):
        unrounded = first @ second
    assert rounded.dtype == torch.float32
    assert 1e-3 < error(rounded, factors) < 0.5
    assert torch.equal(after, rounded)
    for product in (within, unrounded, first @ second):
        assert error(product, factors) < 1e-4


def test_a_failed_step_leaves_products_as_they_were(factors: tuple[Tensor, Tensor]) -> None:
    with (
        pytest.raises(ValueError, match="not finite"),
        rounded_products("bfloat16"),
        exact("cpu"),
    ):
        raise ValueError("not finite")
    assert error(factors[0] @ factors[1], factors) < 1e-4


def test_codes_are_of_float32_whatever_the_precision() -> None:
    """Counts, sums and codes of a step, on vectors that rounding would make neighbours of."""
    generator = torch.Generator().manual_seed(0)
    inputs = 1 + torch.rand(8, 6, 8, 8, generator=generator) / 100
    noise = torch.rand(8, 8, 8, generator=generator)
    found = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        quantizer = Quantizer(16, 6).train()
        with rounded_products(precision), mixed(precision, "cpu"):
            codes = [quantizer(inputs, noise).codes for _ in range(2)]
        found.append([*codes, quantizer.codebook, quantizer.counts, quantizer.sums])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("linear", "dtype"), [(layers.Linear, torch.float32), (convolutions.Linear, torch.bfloat16)]
)
def test_dense_layers_are_torchs_up_to_rounding(
    linear: Callable[[int, int], nn.Linear], dtype: torch.dtype
) -> None:
    """In a fit on a CPU, of float32 and in bfloat16; their weights have gradients of float32."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layer, plain = linear(12, 7).train(), nn.Linear(12, 7)
    plain.load_state_dict(layer.state_dict())
    values = torch.randn(5, 12, generator=generator)
    weights = torch.randn(5, 7, generator=generator)

    def derived(each: nn.Linear, precision: Precision) -> tuple[Tensor, ...]:
        given = values.clone().requires_grad_()
        with rounded_products(precision):
            with mixed(precision, "cpu"):
                outputs = each(given)
            (outputs.float() * weights).sum().backward()
        gradients = given.grad, each.weight.grad, each.bias.grad
        each.zero_grad()
        assert all(gradient is not None for gradient in gradients)
        return outputs.detach(), *(gradient for gradient in gradients if gradient is not None)

    expected = derived(plain, "float32")
    torch.testing.assert_close(derived(layer, "float32"), expected)
    rounded = derived(layer, "bfloat16")
    assert rounded[0].dtype == dtype
    assert {gradient.dtype for gradient in rounded[1:]} == {torch.float32}
    for ours, theirs in zip(rounded, expected, strict=True):
        assert float((ours - theirs).abs().max()) < 0.03 * float(theirs.abs().max())
    with mixed("bfloat16", "cpu"):
        assert layer.eval()(values).dtype == torch.bfloat16
