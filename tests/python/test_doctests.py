"""The examples in the documentation of every module do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import dkv

MODULES = [module.name for module in pkgutil.walk_packages(dkv.__path__, "dkv.")]


@pytest.mark.parametrize("name", [name for name in MODULES if "._" not in name])
def test_examples_hold(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.failed == 0
