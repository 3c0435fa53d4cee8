"""Labels as arrays hold them, and their names."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

_MAXIMUM_LABEL = 65_535


def label_names(
    train: NDArray[np.integer], test: NDArray[np.integer], names: Sequence[str] = ()
) -> tuple[str, ...]:
    """`names`, or the numbers from 0 to the largest label of both splits."""
    if names:
        return tuple(names)
    return tuple(str(label) for label in range(max(int(train.max()), int(test.max())) + 1))


def checked_labels(
    labels: NDArray[np.generic], count: int, what: str, names: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Labels [N] or [N, 1] as int64. Raises TrainingError, calling them `what`.

    They must be `count` integers from 0 to 65535, or to the last of `names` if there are any.
    """
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iu":
        raise TrainingError(
            f"{what} is {labels.dtype} of shape {labels.shape}; expected {count} integers, one "
            "for each image"
        )
    limit = len(names) - 1 if names else _MAXIMUM_LABEL
    if count and not 0 <= int(labels.min()) <= int(labels.max()) <= limit:
        raise TrainingError(
            f"{what} goes from {labels.min()} to {labels.max()}; expected labels from 0 to {limit}"
        )
    return labels.reshape(count).astype(np.int64)
