"""A progress bar for people at a terminal; whoever pipes gets lines alone."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from training.distributed import process_index


@dataclass(frozen=True)
class Standing:
    """Where a fit stands after a step; rate and distortion are means of the epoch so far."""

    step: int
    steps: int
    epoch: int
    epochs: int
    rate: float
    distortion: float
    images_per_second: float


Watch = Callable[[Standing], None]


@contextmanager
def progress_bar() -> Iterator[Watch | None]:
    """What draws a bar below the lines that are printed meanwhile; None without a terminal.

    The bar goes when the context ends.
    """
    if process_index() > 0 or not sys.stdout.isatty():
        yield None
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=None),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),  # the end of this goes where columns are few
    )
    with Progress(*columns, expand=True, transient=True) as progress:

        def watch(standing: Standing) -> None:
            if not progress.tasks:  # made now, as a fit that is resumed does not begin at 0
                progress.add_task(
                    "", total=standing.steps, completed=standing.step, epoch="", numbers=""
                )
            progress.update(
                progress.task_ids[0],
                completed=standing.step,
                epoch=f"{standing.epoch}/{standing.epochs}",
                numbers=_numbers(standing),
            )

        yield watch


def _numbers(standing: Standing) -> str:
    return (
        f"ELBO {-(standing.rate + standing.distortion):.2f} "
        f"(rate {standing.rate:.2f}, distortion {standing.distortion:.2f})  "
        f"{standing.images_per_second:.0f} images/s"
    )
