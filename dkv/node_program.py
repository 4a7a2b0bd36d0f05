"""The dkv-node executable that comes with the package."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from dkv.errors import PreconditionError


def path() -> Path:
    """Where the executable is. The environment variable DKV_NODE names another one.

    Raises `PreconditionError` if it has not been built.
    """
    found = Path(os.environ.get("DKV_NODE") or Path(__file__).parent / "bin" / "dkv-node")
    if not os.access(found, os.X_OK):
        raise PreconditionError(f"there is no program {found}; build it with: make")
    return found


def main() -> NoReturn:
    """Becomes dkv-node: what the command `dkv-node` of a Python environment does."""
    program = path()
    os.execv(program, [str(program), *sys.argv[1:]])
