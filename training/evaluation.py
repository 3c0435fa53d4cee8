"""What an evaluation says: the numbers that apply to a model, as JSON and as a table."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from training.bounds import Bound


@dataclass(frozen=True)
class Evaluation:
    """Means over the items, in nats per item unless said. None: does not apply, or not asked for.

    items: how many there were.
    elbo: -(rate + distortion); an autoencoder has a distortion only.
    mean_squared_error: of a pixel of the decoded posterior mean.
    active_units: latents whose posterior mean varies over items by more than 0.01 (Burda et al.
    2016); active_units_by_rate: with a rate above 0.1 nat (of groups for a ladder).
    mutual_information, mismatch, moment_mismatch, discrepancy: q(z) against a standard normal
    prior, see `training.latent_statistics`; the last is MMD^2 and has no unit.
    log_likelihood: the bound of `importance_samples` draws on `importance_items` items; beside it
    its standard error over items and the draws' effective sample size.
    elbo_gap, log_likelihood_gap: how far the bounds of one and of all draws are from the truth,
    on the same items, for sets whose log-likelihood is known.
    mutual_information_gap: MIG, for sets with factors. used_codes, code_count, perplexity: the
    share of a codebook that is used, its size, and exp of the entropy of its use.
    label_agreement: the share of conditional samples that a classifier reads as asked for.
    gradient_energy: squared differences of neighbouring pixels of reconstructions, as a share of
    the observations' own: how sharp they are.
    bounds: of several k, and rate_by_unit: the mean rate by latent or group, are lists.
    """

    distortion: float
    items: int
    elbo: float | None = None
    rate: float | None = None
    bits_per_dim: float | None = None
    mean_squared_error: float | None = None
    active_units: int | None = None
    active_units_by_rate: int | None = None
    mutual_information: float | None = None
    mismatch: float | None = None
    moment_mismatch: float | None = None
    discrepancy: float | None = None
    log_likelihood: float | None = None
    log_likelihood_standard_error: float | None = None
    effective_sample_size: float | None = None
    importance_samples: int | None = None
    importance_items: int | None = None
    elbo_gap: float | None = None
    log_likelihood_gap: float | None = None
    mutual_information_gap: float | None = None
    used_codes: float | None = None
    code_count: int | None = None
    perplexity: float | None = None
    label_agreement: float | None = None
    gradient_energy: float | None = None
    bounds: tuple[Bound, ...] = ()
    rate_by_unit: tuple[float, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, float | int | None]:
        """The numbers that apply, by name, without the lists."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if value is not None and not isinstance(value, tuple)
        }

    def document(self) -> dict[str, Any]:
        """Everything that applies, by name, as JSON takes it."""
        lists = {
            "bounds": [vars(bound) for bound in self.bounds],
            "rate_by_unit": list(self.rate_by_unit),
        }
        return self.to_json() | {name: values for name, values in lists.items() if values}

    def rows(self) -> list[tuple[str, str, str]]:
        """The name, value and unit of each number that applies, but for the bounds."""
        most = math.log(self.items)
        units = {
            "active_units_by_rate": f"of {len(self.rate_by_unit)}",
            "mutual_information": f"nats; at most {most:.3f} from {self.items} items",
            "used_codes": f"of {self.code_count}",
        }
        return [
            (title, f"{value:{form}}", units.get(name, unit))
            for name, title, form, unit in _ROWS
            if (value := getattr(self, name)) is not None
        ]

    def table(self) -> str:
        """What applies, for people: one line for each number, then the bounds."""
        lines = [f"  {name:<26} {value:>10}  {unit}".rstrip() for name, value, unit in self.rows()]
        if self.bounds:
            lines.append("")
            lines.append(f"  bounds on the log-likelihood of {self.importance_items} items")
            lines.append("        k      nats   standard error   effective sample size")
            lines += [
                f"  {bound.k:>7} {bound.value:>9.3f} {bound.standard_error:>16.3f}"
                f" {bound.effective_sample_size:>23.1f}"
                for bound in self.bounds
            ]
        return "\n".join(lines)


_NATS = "nats per item"
_ROWS = (
    ("elbo", "ELBO", ".3f", _NATS),
    ("rate", "rate", ".3f", _NATS),
    ("distortion", "distortion", ".3f", _NATS),
    ("bits_per_dim", "bits per dim", ".4f", ""),
    ("mean_squared_error", "mean squared error", ".5f", "a pixel of a reconstruction"),
    ("log_likelihood", "log-likelihood", ".3f", _NATS),
    ("active_units", "active units", "d", ""),
    ("active_units_by_rate", "active units by rate", "d", ""),
    ("mutual_information", "mutual information", ".3f", "nats"),
    ("mismatch", "mismatch of q(z)", ".3f", "nats"),
    ("moment_mismatch", "mismatch of its moments", ".3f", "nats"),
    ("discrepancy", "discrepancy (MMD^2)", ".5f", ""),
    ("elbo_gap", "gap of the ELBO", ".4f", "nats from the truth"),
    ("log_likelihood_gap", "gap of the log-likelihood", ".4f", "nats from the truth"),
    ("mutual_information_gap", "mutual information gap", ".3f", ""),
    ("used_codes", "used codes", ".3f", ""),
    ("perplexity", "perplexity of the codes", ".1f", ""),
    ("label_agreement", "label agreement", ".3f", ""),
    ("gradient_energy", "gradient energy", ".3f", "of the observations' own"),
)
