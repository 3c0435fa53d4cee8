import xml.etree.ElementTree as ET

import numpy as np
import pytest

from training.report.charts import bars, curves, points
from training.report.page import Picture

LINES = {"train": ([1, 2, 3], [9.0, 5.0, 4.0]), "held out": ([3], [4.5])}


def texts(picture: Picture) -> set[str]:
    """What is written in an SVG."""
    root = ET.fromstring(picture.content)  # noqa: S314 - of our own making
    return {text for each in root.iter() if (text := (each.text or "").strip())}


def test_curves_have_a_panel_for_each_metric_and_say_where_they_end() -> None:
    picture = curves({"rate": LINES, "distortion": LINES}, "epoch")
    assert {"rate", "distortion", "epoch", "train", "held out", "nats per item"} <= texts(picture)
    assert "rate train from 9.00 to 4.00" in picture.alt
    assert picture.media_type == "image/svg+xml"


def test_a_constant_curve_of_one_point_is_drawn() -> None:
    assert "rate" in texts(curves({"rate": {"train": ([1], [2.0])}}, "epoch"))


def test_bars_fall_and_name_their_latents() -> None:
    picture = bars([0.05, 3.0, 0.5], 0.1, "latent")
    assert {"0", "1", "2"} <= texts(picture)
    assert "2 are above 0.1 nats; the largest is latent 1 with 3.00 nats" in picture.alt


def test_many_bars_have_no_names() -> None:
    assert "199" not in texts(bars(np.linspace(0, 1, 200).tolist(), 0.1, "latent"))


@pytest.mark.parametrize("classes", [1, 3, 15, 40])
def test_points_are_coloured_by_class(classes: int) -> None:
    positions = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    names = [f"class{k}" for k in range(classes)]
    picture = points(positions, np.arange(120) % classes, names, "t-SNE")
    assert "t-SNE" in texts(picture)
    assert ("class0" in texts(picture)) is (classes <= 20)
    assert ("coloured by" in picture.alt) is (classes > 1)


def test_points_without_classes_are_drawn() -> None:
    positions = np.zeros((5, 2), np.float32)
    assert "Scatter plot of 5 items" in points(positions, None, (), "latents").alt


def test_a_chart_is_always_the_same_file() -> None:
    assert curves({"rate": LINES}, "epoch") == curves({"rate": LINES}, "epoch")
