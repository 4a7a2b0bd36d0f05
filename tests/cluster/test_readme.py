"""What README.md shows works as it stands there."""

import os
import re
import shlex
import subprocess
import sys

import support

README = (support.ROOT / "README.md").read_text()


def test_the_python_example_runs():
    chapter = README.split("## From Python")[1].split("## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    exec(example, {})


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
