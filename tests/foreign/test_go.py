"""A client in Go, made of proto/dkv.proto alone, against a real cluster.

Its code is in tests/foreign/go. Stubs and program are built in a temporary directory; the modules
that go.mod pins come from Go's cache or through its module proxy.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import support

SOURCE = Path(__file__).parent / "go"
PLUGINS = {
    "protoc-gen-go": "google.golang.org/protobuf/cmd/protoc-gen-go",
    "protoc-gen-go-grpc": "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
}
STUBS = "dkv.example/foreign/dkvpb"
# What Go says when the proxy cannot be reached; anything else that goes wrong is a failure.
NO_PROXY = re.compile(
    r"dial tcp|i/o timeout|connection (refused|reset)|proxyconnect|TLS handshake|GOPROXY=off"
)


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """Runs the go command in a copy of SOURCE; skips where it cannot be used."""
    if not shutil.which("go"):
        pytest.skip("there is no Go toolchain here")
    directory = tmp_path_factory.mktemp("go")
    shutil.copytree(SOURCE, directory, dirs_exist_ok=True)
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}

    def run(*arguments):
        return subprocess.run(
            ["go", *arguments],
            cwd=directory,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    needed = re.search(r"^go ([\d.]+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE)[1]
    found = run("env", "GOVERSION").stdout.strip().removeprefix("go")
    if numbers(found) < numbers(needed):
        pytest.skip(f"the Go toolchain here is {found}; {needed} is needed")
    download = run("mod", "download")
    if download.returncode != 0 and NO_PROXY.search(download.stdout):
        pytest.skip(f"Go's modules cannot be had: {download.stdout.splitlines()[-1]}")
    assert download.returncode == 0, download.stdout
    return directory, run


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


@pytest.fixture(scope="module")
def client(go) -> Path:
    """The built program."""
    directory, run = go
    build = run("build", "-o", "bin/", *PLUGINS.values())
    assert build.returncode == 0, build.stdout
    (directory / "dkvpb").mkdir()
    options = [f"--plugin={name}={directory / 'bin' / name}" for name in PLUGINS]
    for language in ("go", "go-grpc"):
        options += [f"--{language}_out={directory / 'dkvpb'}"]
        options += [f"--{language}_opt=paths=source_relative,Mdkv.proto={STUBS}"]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={support.ROOT / 'proto'}"]
    subprocess.run([*protoc, *options, "dkv.proto"], check=True)
    build = run("build", "-o", "bin/client", ".")
    assert build.returncode == 0, build.stdout
    return directory / "bin/client"


def test_a_client_in_go_stores_reads_and_deletes_through_every_node(client, cluster3):
    for address in cluster3.addresses.values():
        done = subprocess.run(
            [client, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        assert done.stdout.splitlines()[-1] == "ok health", done.stdout
