"""One self-contained HTML file on a run: what was fitted, what it reached, how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from training.evaluate import Items
from training.evaluation import Evaluation
from training.model import Model
from training.report import sections
from training.report.page import Section, Table, page

FILE_NAME = "report.html"
_SEED = 20131220


@dataclass(frozen=True)
class Goal:
    """A number that the preset must reach, as asked for and as reached; met None: not measured."""

    name: str
    wanted: str
    reached: str
    met: bool | None


@dataclass(frozen=True)
class Subject:
    """What a report is on.

    `facts` are shown below the title, in their order; `history` are the lines of metrics.jsonl;
    `items` are those that `evaluation` was made on.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    goals: Sequence[Goal]
    history: Sequence[Mapping[str, float | int]]
    evaluation: Evaluation
    model: Model
    items: Items
    label_names: tuple[str, ...] = ()


@torch.no_grad()
def render(subject: Subject) -> bytes:
    """The HTML file of a model in eval mode; the same subject gives the same bytes."""
    generator = torch.Generator().manual_seed(_SEED)
    scene = sections.scene(subject.model, subject.items, subject.label_names)
    shown = (
        _numbers(subject),
        sections.training_curves(subject.model, subject.history),
        sections.reconstructions(scene),
        sections.prior_samples(scene, generator),
        sections.traversals(scene, subject.evaluation.rate_by_unit),
        sections.interpolations(scene),
        sections.arithmetic(scene),
        sections.latent_space(scene),
        sections.rate_by_unit(scene, subject.evaluation),
    )
    return page(subject.title, subject.facts, [section for section in shown if section])


def _numbers(subject: Subject) -> Section:
    evaluation, tables = subject.evaluation, []
    if subject.goals:
        words = {True: "met", False: "missed", None: "not measured"}
        rows = [(goal.name, goal.wanted, goal.reached, words[goal.met]) for goal in subject.goals]
        tables.append(Table(("goal", "wanted", "reached", ""), rows, frozenset({1, 2})))
    tables.append(Table(("measure", "value", ""), evaluation.rows(), frozenset({1})))
    if evaluation.bounds:
        head = ("draws k", "bound in nats", "standard error", "effective sample size")
        rows = [
            (
                f"{bound.k}",
                f"{bound.value:.3f}",
                f"{bound.standard_error:.3f}",
                f"{bound.effective_sample_size:.1f}",
            )
            for bound in evaluation.bounds
        ]
        tables.append(Table(head, rows, frozenset({0, 1, 2, 3})))
    text = f"Means over {evaluation.items} items of the test split."
    if evaluation.bounds:
        text += (
            f" The bounds on the log-likelihood are of {evaluation.importance_items} of them; the "
            "standard error is that of the mean over items."
        )
    return Section("Numbers", text, tables)
