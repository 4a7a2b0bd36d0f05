"""The notebooks run from top to bottom, and their numbers are what their texts claim."""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import support

NOTEBOOKS = sorted((support.ROOT / "notebooks").glob("*.ipynb"))
# What a notebook may import: dkv's extra viz, beside the standard library and dkv itself.
FOREIGN = {"dkv", "matplotlib", "numpy"}


def run(name: str, numbers: dict[str, str], monkeypatch: Any, tmp_path: Path) -> dict[str, Any]:
    """Runs a copy of the notebook; returns what the expressions in `numbers` are at its end."""
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    book = nbformat.read(support.ROOT / "notebooks" / name, as_version=4)
    entries = ", ".join(f"{key!r}: {expression}" for key, expression in numbers.items())
    asked = f"import json; print(json.dumps({{{entries}}}, default=lambda array: array.tolist()))"
    book.cells.append(nbformat.v4.new_code_cell(asked))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=120, kernel_name="python3", resources=resources).execute()
    answer: dict[str, Any] = json.loads(book.cells[-1].outputs[0].text)
    return answer


def test_key_distribution(monkeypatch: Any, tmp_path: Path) -> None:
    numbers = {
        "by_hand": "by_hand == ring.replicas('some key')",
        "measured": "list(measured.values())",
        "theory": "list(theory.values())",
        "chi_squares": "chi_squares",
        "limit": "limit",
        "spreads": "spreads",
        "expected": "expected",
        "moved": "[change.moved, change.minimum, differs.mean()]",
        "gifts": "bool((differs == has_newcomer).all() and others_are_old)",
        "on_ring": "moved_on_ring",
        "by_modulo": "moved_by_modulo",
        "replaced": "[same_tokens.moved, ring.replica_shares()['n05'] / 3, own_tokens.moved]",
        "left_aware": "left_aware",
        "left_unaware": "left_unaware",
        "drawn": "drawn",
    }
    found = run("key_distribution.ipynb", numbers, monkeypatch, tmp_path)
    assert found["by_hand"] and found["gifts"]
    assert found["measured"] == pytest.approx(found["theory"], rel=0.1)
    assert found["spreads"] == pytest.approx(found["expected"], rel=0.2)
    # Which files and words there are depends on Python's version: 45 has a chance of one in 10^6.
    unhashed = found["chi_squares"].pop("words, not hashed")
    assert max(found["chi_squares"].values()) < 45 < unhashed
    assert found["limit"] == pytest.approx(16.9, abs=0.4)
    moved, minimum, keys_touched = found["moved"]
    assert moved == minimum == pytest.approx(keys_touched / 3, rel=0.02)
    for n, on_ring, by_modulo in zip(
        range(2, 51), found["on_ring"], found["by_modulo"], strict=True
    ):
        assert on_ring == pytest.approx(1 / (n + 1), rel=0.3)
        assert by_modulo == pytest.approx(n / (n + 1), rel=0.02)
    same_tokens, share, own_tokens = found["replaced"]
    assert same_tokens == pytest.approx(share) and own_tokens > 1.4 * same_tokens
    assert found["left_aware"] == [0, 0, 1, 0]
    assert found["left_unaware"] == pytest.approx(found["drawn"], abs=0.02)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_as_it_ran(path: Path) -> None:
    """With all outputs, none of them an error or a warning, and small."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert path.stat().st_size < 500_000
    assert str(support.ROOT) not in path.read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_imports_only_dkv_and_what_its_extra_brings(path: Path) -> None:

    imported = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add((node.module or "").partition(".")[0])
    assert imported <= FOREIGN | sys.stdlib_module_names
