"""Options and fixtures that all tests share."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--c-build",
        action="append",
        default=None,
        choices=("gcc", "asan", "tsan"),
        help="run the C tests in this build only (may be given several times)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.c_build is None:
        config.option.c_build = ["gcc", "asan"]
