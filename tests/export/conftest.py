"""What the tests of export look at: the graphs of every family."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import pytest

from export.graphs import Graph
from tests.families import MODELS, Families
from training.checkpoint import Run

T = TypeVar("T")
PLAIN = ("mlp", "conv", "gaussian")  # flat latents, and nothing else to say


class ByName(Mapping[str, T]):
    """What `get` gives for each of `MODELS`, when it is asked for."""

    def __init__(self, get: Callable[[str], T]) -> None:
        self._get = get

    def __getitem__(self, name: str) -> T:
        return self._get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(MODELS)

    def __len__(self) -> int:
        return len(MODELS)


@pytest.fixture(scope="session")
def runs(families: Families) -> Mapping[str, Run]:
    """A run of 30 test items by name of its model."""
    return ByName(families.run)


@pytest.fixture(scope="session")
def graphs(families: Families) -> Mapping[str, tuple[Graph, ...]]:
    """All graphs by name of the model."""
    return ByName(lambda name: families.version(name).graphs)


@pytest.fixture(params=PLAIN)
def traced(request: pytest.FixtureRequest, graphs: Mapping[str, tuple[Graph, ...]]) -> list[Graph]:
    """The graphs of each plain model in turn."""
    return list(graphs[request.param])


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    """Each model's name in turn."""
    return str(request.param)


@pytest.fixture
def family(name: str, graphs: Mapping[str, tuple[Graph, ...]]) -> list[Graph]:
    """The graphs of each model in turn."""
    return list(graphs[name])
