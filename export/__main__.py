"""`python -m export RUN --repository DIR --name NAME`: publish a run as a model version."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.checks import opset
from export.convert import Version, export_run
from export.errors import ExportError
from export.publish import check_name
from training.checkpoint import load_run
from training.errors import TrainingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 if the input is at fault, 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m export", description="Publish a run as the next version of a model."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of training")
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="DIR", help="made if it is missing"
    )
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument(
        "--data-path",
        metavar="DIR",
        help="where the run's data set lies now; default: where it lay",
    )
    options = parser.parse_args(arguments)
    try:
        check_name(options.name)
        version = export_run(
            load_run(options.run), options.repository, options.name, options.data_path
        )
    except (ExportError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was published", file=sys.stderr)
        return 130
    print(_summary(version))
    return 0


def _summary(version: Version) -> str:
    lines = [f"published {version.path}"]
    for graph in version.graphs:
        parity = version.parity[graph.kind]
        inputs = ", ".join(value.name for value in graph.inputs)
        outputs = ", ".join(value.name for value in graph.outputs)
        lines += [
            f"  {graph.file}  {len(graph.content) / 1024:.0f} KiB, opset {opset(graph.content)}",
            f"    {inputs} -> {outputs}",
            f"    differs from torch by at most {parity.max_absolute_error:.1e}"
            f" (tolerance {parity.tolerance:.0e})",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
