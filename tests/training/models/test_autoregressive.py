import pytest
import torch

from training.errors import TrainingError
from training.models import AutoregressiveConfig, Layout

CONFIG = AutoregressiveConfig(2, (8,), (4,), width=4, layers=2, kernel=3)


def test_probabilities_of_all_images_sum_to_one() -> None:
    torch.manual_seed(0)
    model = CONFIG.build(Layout((1, 2, 4)))
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 8).view(-1, 1, 2, 4)
    latents = torch.randn(1, 2).expand(len(images), -1)
    total = torch.exp(-model.distortion(images, latents)).sum().item()
    assert total == pytest.approx(1.0, abs=1e-4)


def test_decode_follows_the_likelier_pixel() -> None:
    torch.manual_seed(0)
    model = CONFIG.build(Layout((1, 4, 4)))
    latents = torch.randn(3, 2)
    with torch.no_grad():
        probabilities = model.decode(latents)
        path = (probabilities > 0.5).float()
        expected = torch.sigmoid(model.decoder(path, latents))
    torch.testing.assert_close(probabilities, expected)


def test_colours_are_refused() -> None:
    with pytest.raises(TrainingError, match="needs gray images"):
        CONFIG.build(Layout((3, 4, 4)))
