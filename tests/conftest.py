"""Options and fixtures that all tests share."""

from collections.abc import Iterator

import pytest

import dkv


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--c-build",
        action="append",
        default=None,
        choices=("gcc", "asan", "tsan"),
        help="run the C tests in this build only (may be given several times)",
    )


@pytest.fixture(scope="module")
def cluster3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dkv.Cluster]:
    """Three nodes, three copies; their logs stay in pytest's temporary directory."""
    with dkv.Cluster(3, 3, directory=tmp_path_factory.mktemp("cluster3")) as cluster:
        yield cluster


@pytest.fixture
def client3(cluster3: dkv.Cluster) -> Iterator["dkv.Client"]:
    """A client of `cluster3`."""
    with cluster3.client() as client:
        yield client
