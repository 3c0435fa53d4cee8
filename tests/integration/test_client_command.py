"""python -m vae_client, against a real service."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.launch import ServiceProcess
from vae_client import VaeClient
from vae_client.__main__ import main


def test_sample_writes_a_picture(
    service: ServiceProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "samples.png"
    arguments = ["--model", "digits", "--count", "16", "--seed", "7", "--out", str(out)]

    code = main(["sample", "--target", service.target, *arguments])

    assert code == 0
    with Image.open(out) as picture:
        assert picture.size == (4 * 9 * 8, 4 * 9 * 8)
        assert picture.getextrema()[1] > 128
    assert "16 samples of models/digits/versions/1 with seed 7" in capsys.readouterr().out


def test_sample_writes_an_array(service: ServiceProcess, client: VaeClient, tmp_path: Path) -> None:
    out = tmp_path / "samples.npy"
    arguments = ["--model", "digits", "--count", "3", "--seed", "7", "--out", str(out)]

    code = main(["sample", "--target", service.target, *arguments])

    assert code == 0
    np.testing.assert_allclose(
        np.load(out), client.sample("digits", 3, seed=7).observations, atol=1e-6
    )


def test_models_lists_what_is_served(
    service: ServiceProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--target", service.target]) == 0

    assert "models/digits/versions/1  observations [1, 8, 8]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "model", "code", "message"),
    [
        ("x.gif", "digits", 2, "must end in .png or .npy"),
        ("x.png", "nope", 1, "NOT_FOUND"),
        ("missing/x.png", "digits", 2, "No such file or directory"),
    ],
)
def test_what_goes_wrong_is_one_line(
    service: ServiceProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    out: str,
    model: str,
    code: int,
    message: str,
) -> None:
    arguments = ["sample", "--target", service.target, "--model", model]

    assert main([*arguments, "--out", str(tmp_path / out)]) == code

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_labels_go_with_the_request(
    service: ServiceProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "digits", "--labels", "3", "--out", str(tmp_path / "x.npy")]

    assert main(["sample", "--target", service.target, *arguments]) == 1

    assert "models/digits/versions/1 is not conditional" in capsys.readouterr().err
