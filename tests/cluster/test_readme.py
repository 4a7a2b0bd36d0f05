"""What README.md shows works as it stands there."""

import os
import re
import shlex
import subprocess
import sys

import dkv
import support
from dkv import node_program

README = (support.ROOT / "README.md").read_text()


def test_the_python_examples_run():
    chapter = README.split("## From Python")[1].split("## ")[0]
    examples = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    assert len(examples) >= 3
    names = {}
    for example in examples:
        exec(example, names)


def test_the_way_to_bring_a_node_back_works(tmp_path):
    assert "dkv-node --config D/n4.yaml" in README
    with dkv.Cluster(4, 3, directory=tmp_path) as cluster:
        cluster.kill("n4")
        node = subprocess.Popen([node_program.path(), "--config", tmp_path / "n4.yaml"])
        try:
            cluster.wait_ready()
            while cluster.status()["n4"] is None:
                assert node.poll() is None
        finally:
            node.terminate()
            assert node.wait(20) == 0


def test_the_shell_examples_run(cluster3, tmp_path):
    chapter = README.split("## From the shell")[1].split("## ")[0]
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    program = shlex.join([sys.executable, "-m", "dkv"])
    env = os.environ | {"DKV_CONNECT": ",".join(cluster3.addresses.values())}
    lines = [line.strip() for line in chapter.splitlines() if line.startswith("    dkv ")]
    assert len(lines) >= 6
    for line in lines:
        if not line.startswith("dkv up"):
            command = line.replace("dkv", program, 1)
            subprocess.run(command, shell=True, cwd=tmp_path, env=env, check=True)
