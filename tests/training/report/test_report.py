import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.wrapped import Wrapped
from training.data import Dataset
from training.evaluate import Effort, Items, evaluate_items
from training.fit import Fitted
from training.report import Goal, Subject, render
from training.report.sections import interpolations, scene

EVERYTHING = [
    "Numbers",
    "Training",
    "Reconstructions",
    "Samples from the prior",
    "Traversals",
    "Interpolations",
    "Latent arithmetic",
    "Latent space",
    "Rate by latent",
]
NAMES = tuple("abcdefghij")


def subject(fitted: Fitted, dataset: Dataset, model: Any = None) -> Subject:
    model = fitted.model if model is None else model
    items = Items(
        torch.from_numpy(dataset.observations("test")), torch.from_numpy(dataset.test_labels)
    )
    evaluation = evaluate_items(model, items, torch.Generator(), effort=Effort(1, 10))
    goal = Goal("negative ELBO", "at most 1", "27.50", met=False)
    facts = [("data", dataset.name)]
    return Subject("tiny", facts, [goal], fitted.history, evaluation, model, items, NAMES)


def headings(report: bytes) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", report.decode())


@pytest.fixture(scope="module")
def report(fitted: Fitted, tiny_dataset: Dataset) -> bytes:
    return render(subject(fitted, tiny_dataset))


def test_a_report_on_a_vae_has_every_section(report: bytes) -> None:
    assert headings(report) == EVERYTHING


def test_a_report_says_what_was_wanted_and_what_was_reached(report: bytes) -> None:
    html = report.decode()
    assert "27.50" in html
    assert "missed" in html
    assert "effective sample size" in html


def test_every_picture_has_an_alternative_text(report: bytes) -> None:
    html = report.decode()
    assert html.count("<img") == len(re.findall(r'alt="[^"]{5,}"', html))


def test_a_report_is_light_and_loads_nothing(report: bytes) -> None:
    assert len(report) < 2_000_000
    assert not re.search(rb'(src|href)="(?!data:)', report)


def test_a_report_is_always_the_same(report: bytes, fitted: Fitted, tiny_dataset: Dataset) -> None:
    assert render(subject(fitted, tiny_dataset)) == report


def test_without_history_and_labels_their_sections_are_absent(
    fitted: Fitted, tiny_dataset: Dataset
) -> None:
    plain = replace(subject(fitted, tiny_dataset), history=[], label_names=(), goals=[])
    absent = {"Training", "Latent arithmetic"}
    assert headings(render(plain)) == [name for name in EVERYTHING if name not in absent]


class Conditional(Wrapped):
    """Takes labels, and notes which it was asked to decode."""

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted.model)
        self.label_count = 10
        self.asked: list[list[int]] = []

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        assert len(label) == len(latents)
        self.asked.append(label.tolist())
        decoded: Tensor = self.model.decode(latents)
        return decoded


def test_a_conditional_model_is_sampled_label_by_label(
    fitted: Fitted, tiny_dataset: Dataset
) -> None:
    model = Conditional(fitted)
    html = render(subject(fitted, tiny_dataset, model))
    assert "Latent arithmetic" not in headings(html)
    assert b"samples from the prior of label c" in html
    assert [2] * 14 in model.asked


def test_interpolations_of_a_conditional_model_stay_within_a_label(
    fitted: Fitted, tiny_dataset: Dataset
) -> None:
    model = Conditional(fitted)
    items = subject(fitted, tiny_dataset).items
    assert items.labels is not None
    with torch.no_grad():
        section = interpolations(scene(model, items, NAMES))
    assert section is not None
    ends = re.findall(r"from item (\d+) to item (\d+)", section.html())
    assert ends
    assert all(items.labels[int(a)] == items.labels[int(b)] for a, b in ends)


class Codes(Wrapped):
    """Its latents are no numbers to walk between."""

    code_count = 2

    def codes(self, observations: Tensor, label: Tensor | None) -> Tensor:
        return observations.long()


def test_a_model_of_codes_has_no_walks(fitted: Fitted, tiny_dataset: Dataset) -> None:
    html = render(subject(fitted, tiny_dataset, Codes(fitted.model)))
    assert headings(html) == ["Numbers", "Training", "Reconstructions", "Samples from the prior"]
    assert b"decoded from their codes" in html


def test_rates_of_groups_of_latents_are_called_so(fitted: Fitted, tiny_dataset: Dataset) -> None:
    plain = subject(fitted, tiny_dataset)
    grouped = replace(plain, evaluation=replace(plain.evaluation, rate_by_unit=(1.0, 0.5)))
    assert headings(render(grouped))[-1] == "Rate by group"


class Pixels(Wrapped):
    """Draws pixels that depend on one another."""

    def draw(self, latents: Tensor, noise: Tensor) -> Tensor:
        return (noise[:, None] > 0).float()


def test_a_model_that_draws_pixels_shows_such_draws(fitted: Fitted, tiny_dataset: Dataset) -> None:
    html = render(subject(fitted, tiny_dataset, Pixels(fitted.model)))
    assert html.count(b"samples from the prior, their pixels drawn") == 5


@pytest.mark.parametrize("items", [1, 2, 4])
def test_a_few_items_are_enough(fitted: Fitted, tiny_dataset: Dataset, items: int) -> None:
    shown = headings(render(subject(fitted, tiny_dataset.head(None, items))))
    assert "Traversals" in shown
    assert ("Latent space" in shown) is (items > 2)


def test_a_goal_that_was_not_measured_is_neither_met_nor_missed(
    fitted: Fitted, tiny_dataset: Dataset
) -> None:
    open_goal = Goal("label agreement", "at least 0.95", "", met=None)
    html = render(replace(subject(fitted, tiny_dataset), goals=[open_goal])).decode()
    assert "not measured" in html
    assert "missed<" not in html


def test_no_bound_is_claimed_for_an_autoencoder(fitted: Fitted, tiny_dataset: Dataset) -> None:
    plain = Wrapped(fitted.model)
    plain.family = "autoencoder"
    html = render(subject(fitted, tiny_dataset, plain))
    assert b"ELBO is" not in html
    assert "Rate by latent" not in headings(html)
    assert "Traversals" in headings(html)
