"""What docs/training.md shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import training

PAGE = (Path(training.__file__).parents[1] / "docs" / "training.md").read_text()


def test_a_run_is_used_in_python(digits_run: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    program = program.replace('"runs/conv"', repr(str(digits_run)))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + "print(drawn.shape, rebuilt.shape)"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shape = "torch.Size([8, 1, 8, 8])"
    assert done.stdout.endswith(f"{shape} {shape}\n")


@pytest.mark.parametrize("command", re.findall(r"python -m training (\w+)", PAGE))
def test_the_commands_exist(command: str) -> None:
    assert f'"{command}"' in Path(training.__file__).with_name("__main__.py").read_text()
