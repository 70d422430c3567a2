"""Each tiny model is loaded and exported once; stages run in folders of their own."""

import functools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def bench(tmp_path):
    from doors import Bench

    return Bench(tmp_path)


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """`kept.exported("mlp")`, `kept.ready("mlp")`, `kept.factory("mlp")`: made once, never written to."""
    from doors import Bench

    made = Bench(tmp_path_factory.mktemp("kept"))
    made.factory = functools.cache(made.factory)
    made.exported = functools.cache(made.exported)
    made.ready = functools.cache(made.ready)
    return made


def pytest_collection_modifyitems(items):
    """Stages run in children that ignore what libraries warn of; here they run in this process."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning"))
