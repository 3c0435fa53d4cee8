"""Publish a run as the next version of a model; check a version; compare two.

    python -m export RUN --repository DIR --name NAME [--dry-run]
    python -m export --check VERSIONDIR
    python -m export --check REPOSITORY NAME [VERSION]
    python -m export compare A B

A repository is a directory or a URL: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, file:///PATH.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.compare import ITEMS, compare
from export.convert import export_run
from export.errors import ExportError
from export.graphs import PRECISIONS, Format, Precision
from export.publish import check_name
from export.stored import open_version
from export.summary import summary
from export.verify import verify
from training.checkpoint import load_run
from training.errors import TrainingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 if the input is at fault, 130 if interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["--check"]:
            _check(arguments)
        elif arguments[:1] == ["compare"]:
            _compare(arguments[1:])
        else:
            _export(arguments)
    except (ExportError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was published", file=sys.stderr)
        return 130
    return 0


def _export(arguments: Sequence[str]) -> None:
    parser = _parser("python -m export")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of training")
    parser.add_argument(
        "--repository", required=True, metavar="DIR", help="path or URL; made if it is missing"
    )
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument(
        "--data-path",
        metavar="DIR",
        help="where the run's data set lies now; default: where it lay",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        metavar="NAMES",
        help="by commas: float32, and beside it float16 and int8 where they keep their bounds",
    )
    parser.add_argument("--opset", type=int, default=Format.opset, help="default: %(default)s")
    parser.add_argument(
        "--ir-version", type=int, default=Format.ir_version, help="default: %(default)s"
    )
    parser.add_argument("--dry-run", action="store_true", help="do all but publish")
    options = parser.parse_args(arguments)
    check_name(options.name)
    version = export_run(
        load_run(options.run),
        options.repository,
        options.name,
        options.data_path,
        onnx_format=_format(options.opset, options.ir_version),
        precisions=_precisions(options.precision),
        dry_run=options.dry_run,
    )
    done = f"published {version.address}" if version.address else "published nothing, a dry run"
    print(f"{done}\n{summary(version.manifest)}")
    for file, reason in version.refusals.items():
        print(f"  without {file}: {reason}")


def _format(opset: int, ir_version: int) -> Format:
    """Raises ExportError for versions that were not tried with the pinned torch and onnxruntime."""
    if not 18 <= opset <= 23:
        raise ExportError(f"opset {opset} is none of 18 to 23")
    if not 8 <= ir_version <= 11:
        raise ExportError(f"IR version {ir_version} is none of 8 to 11")
    return Format(opset, ir_version)


def _precisions(text: str) -> list[Precision]:
    """What is asked for beside float32, which every version has."""
    names = dict.fromkeys(text.split(","))
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise ExportError(f"precision {unknown[0]!r} is none of {', '.join(PRECISIONS)}")
    return [PRECISIONS[name] for name in names if name != "float32"]


def _check(arguments: Sequence[str]) -> None:
    parser = _parser("python -m export")
    parser.add_argument(
        "--check",
        required=True,
        nargs="+",
        metavar=("VERSIONDIR | REPOSITORY NAME", "VERSION"),
        help="the version, by default the newest",
    )
    first, *rest = parser.parse_args(arguments).check
    if len(rest) > 2 or not all(number.isdecimal() for number in rest[1:]):
        parser.error("expected VERSIONDIR, or REPOSITORY NAME and perhaps a VERSION number")
    if rest:
        check_name(rest[0])
    address = "/".join([first.rstrip("/"), *rest[:1]])
    version = open_version(address, int(rest[1]) if rest[1:] else None)
    verify(version)
    print(f"{version} is as it was published\n{summary(version.manifest)}")


def _compare(arguments: Sequence[str]) -> None:
    parser = _parser("python -m export compare")
    for name in ("A", "B"):
        parser.add_argument(name, help="REPOSITORY/NAME/VERSION, or REPOSITORY/NAME: the newest")
    options = parser.parse_args(arguments)
    first, second = open_version(options.A), open_version(options.B)
    comparison = compare(first, second)
    print(f"A {first}\nB {second}, {ITEMS} items\n{comparison.table()}")


def _parser(program: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    sys.exit(main())
