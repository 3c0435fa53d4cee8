"""A serialized message in pieces, so that a large array in it need not be copied."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | NDArray[np.generic]


class Spliced:
    """As a response it stands for the message."""

    __slots__ = ("pieces", "size")

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        """pieces: serialized fields, and C-contiguous arrays that are contents of a field."""
        self.pieces = pieces
        size = 0
        for piece in pieces:
            size += len(piece) if isinstance(piece, bytes) else piece.nbytes
        self.size = size

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The serialized message, which copies its arrays."""
        return b"".join(self.pieces)  # type: ignore[arg-type]  # an array is a buffer
