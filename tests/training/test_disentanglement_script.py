"""What the script says of several seeds: the medians' ratio, once both variants have a fit."""

from scripts.disentanglement import VARIANTS, rows


def fit(variant: str, seed: int, gap: float) -> dict[str, object]:
    about = {"device": "cpu", "seconds": 2.0, "mutual_information_gap": gap}
    return {"variant": variant, "seed": seed, **about}


def test_the_ratio_is_that_of_the_medians() -> None:
    plain, other = VARIANTS
    gaps = {plain: (0.1, 0.3, 0.2), other: (0.3, 0.9, 0.5)}
    fits = [fit(name, seed, gap) for name, each in gaps.items() for seed, gap in enumerate(each)]

    (row,) = rows(fits)

    assert row["metric"].endswith("median of 3")
    assert (row["value"], row["goal"], row["met"], row["seconds"]) == (2.5, 2.0, True, 12.0)


def test_a_variant_alone_says_nothing() -> None:
    assert rows([fit(next(iter(VARIANTS)), 0, 0.1)]) == []
