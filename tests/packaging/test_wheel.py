"""The wheel of `make wheel`, installed in a fresh environment on a machine with nothing but Python.

That machine is a directory made the root of a process: it holds Python with its standard library,
the C library and the few others that every manylinux system has, and the fresh environment.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dkv
import support

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
# What a manylinux wheel may take from the system (PEP 600), as far as dkv does.
MANYLINUX = re.compile(r"(ld-linux-x86-64|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|z))\.so\.\d+")

USE_ALL_PARTS = """
import os, pathlib, subprocess, sys
import dkv

mapped = set()

def note_libraries(pid):
    lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    mapped.update(path for line in lines if ".so" in (path := line[73:]))

def command(*words):
    done = subprocess.run([f"{sys.prefix}/bin/dkv", *words], stdout=subprocess.PIPE, check=True)
    return done.stdout

with dkv.Cluster(nodes=3) as cluster, cluster.client() as client:
    client.put("key", b"value")
    print(client.get("key"))
    client.put_many({f"{i}": b"many" for i in range(1000)})
    seeds = ",".join(cluster.addresses.values())
    print(command("get", "key", "--connect", seeds))
    cluster.kill(cluster.ring.owner("key"))
    print(client.get("key"))
    for pid in [os.getpid(), *filter(None, map(cluster.pid, cluster.nodes))]:
        note_libraries(pid)
print(sorted(dkv.sim.World(3, seed=1).put("key", b"value").replicas))
print(subprocess.run([f"{sys.prefix}/bin/dkv-node", "--version"], stdout=subprocess.PIPE).stdout)
print(*sorted(mapped), sep="\\n", file=sys.stderr)
"""


def run(*command: str | Path) -> str:
    return subprocess.run(
        command, cwd=support.ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


# ---- the wheel, and the environment with it ----


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run("make", "--silent", "--no-print-directory", "wheel", f"DIST={directory}")
    (wheel,) = directory.iterdir()
    return wheel


def requirements_of(name: str) -> set[str]:
    """The distributions that `name` needs at run time, itself left out."""
    found: set[str] = set()
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= {requirement.name} | requirements_of(requirement.name)
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and what it requires, copied from ours for want of a net."""
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", directory)
    site = next(directory.glob("lib/python*/site-packages"))
    for name in requirements_of("dkv"):
        for file in distribution(name).files or []:
            if ".." not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(str(file.locate())), site / file)
    pip = [sys.executable, "-m", "pip", "--python", directory / "bin/python"]
    run(*pip, "--quiet", "install", "--no-index", wheel)
    return directory


# ---- the machine ----


def libraries_of(files: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries that ELF files need, directly or not: name and place."""
    lines = run("ldd", *files).splitlines()
    found: dict[str, Path] = {}
    for line in lines:
        words = re.search(r"^\s+(?:(\S+) => )?(/\S+) \(0x", line)
        if words:
            path = Path(words[2])
            found[words[1] or path.name] = path
    return found


def elf_files(environment: Path) -> list[Path]:
    (site,) = environment.glob("lib/python*/site-packages")
    return [*site.glob("dkv/*.so"), *site.glob("dkv.libs/*"), site / "dkv/bin/dkv-node"]


def libraries_of_python() -> dict[str, Path]:
    modules = Path(sysconfig.get_path("platstdlib")).glob("lib-dynload/*.so")
    return libraries_of([Path(sys.executable).resolve(), *modules])


def bundled_names(environment: Path) -> set[str]:
    """libgrpc.so.29 for libgrpc-3a193dd3.so.29.0.0, and so on: the first parts of the names."""
    (libs,) = environment.glob("lib/python*/site-packages/dkv.libs")
    return {path.name.rpartition("-")[0] for path in libs.iterdir()}


@pytest.fixture
def machine(environment: Path, tmp_path: Path) -> Path:
    """A root directory without any library that the wheel brings, even if Python could use it."""
    root = tmp_path / "root"
    bundled = bundled_names(environment)
    system = {**libraries_of_python(), **libraries_of(elf_files(environment))}
    wanted = [
        path
        for name, path in system.items()
        if name.partition(".so")[0] not in bundled and environment not in path.parents
    ]
    for path in [*wanted, Path(sys.executable).resolve()]:
        copy = root / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for directory in ("tmp", "dev", "proc"):
        (root / directory).mkdir()
    return root


def run_on(machine: Path, environment: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python script in `environment` with `machine` for the root of the file system."""
    stdlib = sysconfig.get_path("stdlib")
    places = ["/dev", "/proc", stdlib, str(environment)]
    mounts = [f'mkdir -p "{machine}{place}"' for place in places]
    mounts += [f'mount --rbind "{place}" "{machine}{place}"' for place in places]
    enter = f'exec unshare --root="{machine}" --wd=/ "{environment}/bin/python" -c "$1"'
    return subprocess.run(
        [*UNSHARE, "sh", "-ec", "\n".join([*mounts, enter]), "sh", script],
        env={"PATH": os.environ["PATH"]},
        text=True,
        capture_output=True,
    )


def needs_namespaces() -> None:
    try:
        done = subprocess.run([*UNSHARE, "true"], stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode != 0:
        pytest.skip(f"user namespaces are forbidden here: {done.stderr.strip()}")


# ---- tests ----


def test_one_wheel_serves_all_pythons_from_3_11_on_glibc_2_36(wheel: Path) -> None:
    assert wheel.name == f"dkv-{dkv.__version__}-cp311-abi3-manylinux_2_36_x86_64.whl"


def test_the_wheel_holds_what_it_should(wheel: Path) -> None:
    """Extensions, types, the executable and the licences of what is bundled; no debug symbols."""
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        assert files.getinfo("dkv/bin/dkv-node").external_attr >> 16 & 0o111
        assert b"OpenSSL" in files.read("dkv/licenses/libssl-dev")
        assert b".debug_info" not in files.read("dkv/bin/dkv-node")
    assert {"dkv/_core.abi3.so", "dkv/_net.abi3.so", "dkv/_core.pyi", "dkv/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "csrc", "node"))]
    assert wheel.stat().st_size < 15_000_000


def test_the_wheel_takes_only_manylinux_libraries_from_the_system(environment: Path) -> None:
    libraries = libraries_of(elf_files(environment))
    foreign = {name for name, path in libraries.items() if environment not in path.parents}
    assert not {name for name in foreign if not MANYLINUX.fullmatch(name)}
    assert "libc.so.6" in foreign and {"libgrpc", "libcrypto"} <= bundled_names(environment)


def test_the_wheel_runs_where_there_is_nothing_but_python(machine: Path, environment: Path) -> None:
    """A cluster, its client, the simulator and both commands; and what was mapped meanwhile."""
    needs_namespaces()
    done = run_on(machine, environment, USE_ALL_PARTS)
    assert done.stdout.splitlines() == [
        "b'value'",
        "b'value'",
        "b'value'",
        "['n1', 'n2', 'n3']",
        f"b'dkv-node {dkv.__version__}\\n'",
    ], done.stderr
    mapped = {Path(line) for line in done.stderr.splitlines()}
    own = {path.name for path in mapped if environment in path.parents}
    assert {name.partition("-")[0] for name in own} > {"libgrpc", "libcrypto", "libprotobuf"}
    system = {path.name for path in mapped} - own
    assert not {name for name in system if re.match(r"lib(grpc|absl|crypto|ssl|cares)", name)}
