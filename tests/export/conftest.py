"""What the tests of export look at: the graphs of every family."""

import pytest

from export.graphs import Graph
from tests.families import MODELS, Families
from training.checkpoint import Run

PLAIN = ("mlp", "conv", "gaussian")  # flat latents, and nothing else to say


@pytest.fixture(scope="session")
def runs(families: Families) -> dict[str, Run]:
    """A run of 30 test items by name of its model."""
    return dict(families.runs)


@pytest.fixture(scope="session")
def graphs(families: Families) -> dict[str, tuple[Graph, ...]]:
    """All graphs by name of the model."""
    return {name: version.graphs for name, version in families.versions.items()}


@pytest.fixture(params=PLAIN)
def traced(request: pytest.FixtureRequest, graphs: dict[str, tuple[Graph, ...]]) -> list[Graph]:
    """The graphs of each plain model in turn."""
    return list(graphs[request.param])


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    """Each model's name in turn."""
    return str(request.param)


@pytest.fixture
def family(name: str, graphs: dict[str, tuple[Graph, ...]]) -> list[Graph]:
    """The graphs of each model in turn."""
    return list(graphs[name])
