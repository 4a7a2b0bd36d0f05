"""The examples in the documentation of every module do what they say."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import dkv

MODULES = [
    module.name
    for module in pkgutil.walk_packages(dkv.__path__, "dkv.")
    if not module.name.rpartition(".")[2].startswith("_")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(
    name: str, cluster3: dkv.Cluster, client3: dkv.Client, tmp_path: Path
) -> None:
    outcome = doctest.testmod(
        importlib.import_module(name),
        extraglobs={"dkv": dkv, "cluster": cluster3, "client": client3, "directory": tmp_path},
        optionflags=doctest.ELLIPSIS,
    )
    assert outcome.failed == 0


def documentation_of(thing: object) -> str:
    members = vars(thing).values() if inspect.isclass(thing) else ()
    return "\n".join(inspect.getdoc(each) or "" for each in [thing, *members])


@pytest.mark.parametrize(
    "name", [n for n in dkv.__all__ if inspect.isclass(getattr(dkv, n)) and n != "PeerStatus"]
)
def test_every_public_class_has_an_example(name: str) -> None:
    thing = getattr(dkv, name)
    told = documentation_of(thing)
    if name == "Error":
        told = documentation_of(dkv.errors)
    assert ">>> " in told
