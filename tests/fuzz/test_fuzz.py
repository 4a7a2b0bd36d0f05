"""The fuzz targets of this folder, each for a moment and always the same; `make fuzz` goes on."""

import subprocess
from pathlib import Path

import pytest

import support

HERE = Path(__file__).resolve().parent
# How many inputs each is given: some seconds.
RUNS = {
    "fuzz_config": 6000,
    "fuzz_node": 500,
    "fuzz_ring": 2000,
    "fuzz_store": 350,
    "fuzz_wire": 100_000,
}


def test_every_target_is_run_here() -> None:
    assert sorted(RUNS) == sorted(path.stem for path in HERE.glob("fuzz_*.c"))


@pytest.mark.parametrize("target", RUNS)
def test_nothing_is_found_in_a_short_run(target: str, tmp_path: Path) -> None:
    program = support.make("fuzz", "fuzz") / "fuzz" / target
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    subprocess.run([program, "--seeds", seeds], check=True)
    done = subprocess.run(
        [
            *(program, "-seed=1", f"-runs={RUNS[target]}", "-max_len=1000", "-verbosity=0"),
            *(f"-artifact_prefix={tmp_path}/", seeds),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    found = [path for path in tmp_path.iterdir() if path != seeds]
    assert done.returncode == 0, f"{done.stdout}\nreplay: FUZZ_TRACE=1 {program} {found}"
