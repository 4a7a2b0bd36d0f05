"""What `pip install` gives to a person: the wheel and the source distribution."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dkv
import support


def run(*command, **rest):
    return subprocess.run(
        command, cwd=support.ROOT, check=True, stdout=subprocess.PIPE, text=True, **rest
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation"]
    run(*pip, "--no-index", "--wheel-dir", directory, ".")
    (wheel,) = directory.iterdir()
    return wheel


def test_one_wheel_serves_all_pythons_from_3_11(wheel):
    assert wheel.name.startswith(f"dkv-{dkv.__version__}-cp311-abi3-linux_")


def test_the_wheel_holds_extensions_types_and_the_executable(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        assert files.getinfo("dkv/bin/dkv-node").external_attr >> 16 & 0o111
    assert {"dkv/_core.abi3.so", "dkv/_net.abi3.so", "dkv/_core.pyi", "dkv/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "csrc", "node"))]


def test_an_installed_wheel_runs_a_cluster(wheel, tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-index"]
    run(*pip, "--target", tmp_path / "site", wheel)
    script = "import dkv; print(dkv.__file__)\n"
    script += "with dkv.Cluster(1, 1) as c, c.client() as client:\n"
    script += "    client.put('key', b'value'); print(client.get('key'))"
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    assert run(sys.executable, "-c", script, env=env).splitlines() == [
        str(tmp_path / "site/dkv/__init__.py"),
        "b'value'",
    ]


def test_the_program_and_the_package_have_one_version():
    program = support.ROOT / "dkv/bin/dkv-node"
    assert dkv.__version__ in run(program, "--version")


def test_the_source_distribution_holds_all_that_is_built_from(tmp_path):
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    sources = support.project_files("csrc/*", "node/*", "proto/*", "dkv/*", "tests/*", "Makefile")
    assert {str(path.relative_to(support.ROOT)) for path in sources} <= names
    assert not [name for name in names if name.endswith(".so")]
