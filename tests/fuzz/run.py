"""`make fuzz`: lets the fuzz targets of this folder look for failures, two at a time.

    python tests/fuzz/run.py [--seconds 600] [TARGET]...

Everything is kept below build/fuzz: what was found interesting in corpus/TARGET, from where the
next run goes on, what each target printed in log/TARGET.txt, and inputs that fail in failures/.
Exit status 1: a target has failed; the command that repeats it is printed.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import support

HERE = Path(__file__).resolve().parent
TARGETS = sorted(path.stem for path in HERE.glob("fuzz_*.c"))
TIMEOUT_S = 60  # for one input
LENGTH_MAX = 4096
JOBS = 2


def options(target: str) -> list[str]:
    dictionary = HERE / f"{target}.dict"
    return [f"-dict={dictionary}"] if dictionary.exists() else []


def run(program: Path, build: Path, target: str, seconds: int) -> bool:
    """Runs one target; returns whether all went well."""
    folders = {name: build / name / target for name in ("corpus", "seeds", "failures")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([program, "--seeds", folders["seeds"]], check=True)
    log = build / "log" / f"{target}.txt"
    log.parent.mkdir(exist_ok=True)
    command = [
        *(str(program), *options(target), f"-max_total_time={seconds}", f"-timeout={TIMEOUT_S}"),
        *(f"-max_len={LENGTH_MAX}", f"-artifact_prefix={folders['failures']}/"),
        *(str(folders["corpus"]), str(folders["seeds"])),
    ]
    print(f"{target}: {seconds} s; prints to {log.relative_to(support.ROOT)}", flush=True)
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
    report(target, program, log.read_text(errors="replace"), done.returncode)
    return done.returncode == 0


def report(target: str, program: Path, printed: str, status: int) -> None:
    if status == 0:
        done = [line for line in printed.splitlines() if line.startswith("Done ")]
        print(f"{target}: no failure. {done[-1] if done else ''}", flush=True)
        return
    print(f"{target}: FAILED", flush=True)
    for line in printed.splitlines():
        if "does not hold" in line or line.startswith(("SUMMARY", "==")):
            print(f"    {line}")
        if "Test unit written to " in line:
            print(f"    repeat it: FUZZ_TRACE=1 {program} {line.split()[-1]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    for target in arguments.targets:
        if target not in TARGETS:
            parser.error(f"no target {target}; there are {', '.join(TARGETS)}")
    try:
        build = support.make("fuzz", "fuzz")
    except support.BuildError as error:
        print(error)
        return 1
    with ThreadPoolExecutor(JOBS) as pool:
        results = pool.map(
            lambda target: run(build / "fuzz" / target, build, target, arguments.seconds),
            arguments.targets or TARGETS,
        )
        return 0 if all(list(results)) else 1


if __name__ == "__main__":
    sys.exit(main())
