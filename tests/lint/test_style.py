"""Sizes, words and places that are agreed on for the whole project."""

import re

import support

FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 80  # about 70 is the aim
TOP_LEVEL = {
    *("csrc", "dkv", "node", "notebooks", "proto", "tests", "setup.py", "pyproject.toml"),
    *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "Makefile"),
    *(".ci", ".clang-format", ".clang-tidy", ".gitignore"),
}
SOURCES = ("*.c", "*.h", "*.py", "*.pyi", "*.proto", "*.mk", "*.sh", "Makefile")


def relative(path):
    return str(path.relative_to(support.ROOT))


def c_functions(text):
    """Yields first line and number of lines of each function, as clang-format lays it out."""
    start = None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"[A-Za-z_].*\(", line) and not line.startswith("#"):
            start = number
        elif line == "}" and start:
            yield start, number - start + 1
            start = None


def test_files_and_functions_are_short():
    wrong = []
    for path in support.project_files("*.c", "*.h", "*.py"):
        text = path.read_text()
        lines = text.count("\n")
        if lines >= FILE_LINES_MAX:
            wrong.append(f"{relative(path)} has {lines} lines")
        if path.suffix != ".py":
            wrong += [
                f"{relative(path)}:{start}: a function of {count} lines"
                for start, count in c_functions(text)
                if count > FUNCTION_LINES_MAX
            ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_for_later_in_comments():
    words = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b")
    wrong = [
        f"{relative(path)}:{number}"
        for path in support.project_files(*SOURCES, "*.md")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_lines_have_at_most_100_columns():
    wrong = [
        f"{relative(path)}:{number} has {len(line)} columns"
        for path in support.project_files(*SOURCES)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 100
    ]
    assert not wrong, "\n".join(wrong)


def test_top_level_holds_only_what_is_agreed():
    found = {relative(path).split("/")[0] for path in support.project_files()}
    assert found <= TOP_LEVEL, sorted(found - TOP_LEVEL)
