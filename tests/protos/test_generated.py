"""The committed code of protos/ is what the compiler makes of the .proto files."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"


def generated(folder: Path) -> dict[str, str]:
    paths = [*folder.rglob("*_pb2*.py"), *folder.rglob("*_pb2*.pyi")]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_the_committed_code_is_current(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate_protos.py"), "--out", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    fresh = generated(tmp_path)
    assert fresh
    assert generated(PROTOS) == fresh, "run `make protos`"
