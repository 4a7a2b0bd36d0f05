"""What README.md shows of the ring is what it says."""

import doctest
import re

import dkv
import support


def test_the_ring_example_holds() -> None:
    text = (support.ROOT / "README.md").read_text()
    (example,) = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(example, {"dkv": dkv}, "README.md", None, 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0
