"""What docs/export.md shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import export
from export.precision import ELBO_TOLERANCES, tolerances

PAGE = (Path(export.__file__).parents[1] / "docs" / "export.md").read_text()


def test_plain_onnxruntime_runs_a_version_by_its_manifest_alone(digits_repository: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("models/", f"{digits_repository}/")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "GRAPH_KIND_ENCODER float32 mean float32 (3, 8)" in done.stdout
    assert "GRAPH_KIND_DECODER float32 observations_uint8 uint8 (3, 1, 8, 8)" in done.stdout
    assert len(program.splitlines()) <= 20


def test_the_page_states_the_bounds_of_each_precision() -> None:
    rows = {
        cells[0]: [float(cell.split()[0]) for cell in cells[1:]]
        for line in PAGE.splitlines()
        if "differ" in line and line.startswith("| ")
        for cells in [[cell.strip() for cell in line.strip("| ").split("|")]]
    }
    for column, precision in enumerate(("float16", "int8")):
        bounds = tolerances(precision)
        stated = [values[column] for values in rows.values()]
        assert stated == [
            bounds["mean"],
            bounds["observations"],
            bounds["rate"],
            ELBO_TOLERANCES[precision],
        ]
