"""Every preset as a user tries it: fitted with --smoke, evaluated, drawn, exported and run."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import export.__main__
from service.repository import read_version
from service.session import CPU, Session, SessionOptions
from service.warming import noise
from tests.training.data.idx import idx
from training.__main__ import main
from training.config import DataConfig
from training.data import load_dataset
from training.presets import presets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SPLITS = {"train": slice(None), "t10k": slice(0, 200)}


@pytest.fixture(scope="session")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images [N, 28, 28] and their labels: the data set digits, larger."""
    dataset = load_dataset(DataConfig("digits"))
    assert dataset.train_labels is not None
    rows = np.arange(28) * 8 // 28
    large = (dataset.train[:, 0] * (255 // dataset.maximum))[:, rows][:, :, rows]
    return large.astype(np.uint8), dataset.train_labels.astype(np.uint8)


@pytest.fixture(scope="session")
def paths(
    digits: tuple[NDArray[np.uint8], NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders for the data sets that need one."""
    images, labels = digits
    mnist, folder = tmp_path_factory.mktemp("mnist"), tmp_path_factory.mktemp("folder")
    for split, part in SPLITS.items():
        for name, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            (mnist / f"{split}-{name}-ubyte").write_bytes(idx(array))
    for number, (image, label) in enumerate(zip(images[:300], labels[:300], strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).convert("RGB").save(folder / str(label) / f"{number}.png")
    return {"mnist": mnist, "imagefolder": folder}


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_fitted_exported_and_run(
    name: str, paths: dict[str, Path], tmp_path: Path
) -> None:
    data = presets()[name].config.data.name
    settings = [f"--set=data.path={paths[data]}"] if data in paths else []
    run = tmp_path / "run"
    assert main(["fit", name, "--smoke", "--out", str(run), *settings]) == 0
    assert ">missed<" not in (run / "report.html").read_text()  # goals are for all of the data
    assert (run / "reconstructions.png").exists()

    repository = tmp_path / "models"
    exporting = [str(run), "--repository", str(repository), "--name", "tried"]
    assert export.__main__.main(exporting) == 0
    for kind, graph in read_version(repository, "tried", 1).graphs.items():
        inputs = noise(graph, 3)
        outputs = Session(graph.content, graph.output_names, SessionOptions(CPU, 1)).run(inputs)
        for output, array in outputs.items():
            assert len(array) == 3, f"{output} of {kind}"
            assert np.isfinite(array.astype(np.float64)).all(), f"{output} of {kind}"
