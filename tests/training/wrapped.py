"""A model of which a test changes a part."""

from typing import Any


class Wrapped:
    """Has everything that `model` has."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
