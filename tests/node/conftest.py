"""Fixtures for tests of the program dkv-node."""

import pytest
from processes import Running, free_ports


@pytest.fixture
def launch(tmp_path):
    """Starts dkv-node with its log in a file; kills it at the end."""
    started = []

    def launch(*arguments, **options):
        log = tmp_path / f"{len(started)}.log"
        started.append(Running(log, *arguments, **options))
        return started[-1]

    yield launch
    for running in started:
        running.close()


@pytest.fixture
def ports():
    """Three ports that nobody else is given."""
    with free_ports(3) as numbers:
        yield numbers
