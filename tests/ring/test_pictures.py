"""Pictures of rings: the SVG that a notebook shows, and what dkv.viz draws."""

import re
import xml.etree.ElementTree as ET

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest

from dkv import Member, Ring, _svg, viz

SVG = "{http://www.w3.org/2000/svg}"


def texts(ring: Ring) -> list[str]:
    return [text.text or "" for text in ET.fromstring(ring._repr_svg_()).iter(f"{SVG}text")]


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_the_svg_names_every_node_with_its_share(n: int) -> None:
    ring = Ring([f"n{i}" for i in range(n)], replication=1)
    shown = texts(ring)
    for node, share in ring.shares().items():
        assert shown[shown.index(node) + 1] == f"{share * 100:.1f} %"
    assert shown[0] == ("1 node" if n == 1 else f"{n} nodes")


def test_the_svg_of_many_nodes_stays_small_and_says_what_it_leaves_out() -> None:
    ring = Ring([Member(f"n{i}", token_indices=range(32)) for i in range(300)])
    assert texts(ring)[-1] == "and 200 more"
    assert len(ring._repr_svg_()) < 200_000


def test_the_arcs_of_the_svg_have_the_lengths_of_the_shares() -> None:
    """Outside the owners at the resolution of the picture, inside the exact sums."""
    ring = Ring(["n1", "n2", "n3", "n4"], replication=1)
    paths = ET.fromstring(ring._repr_svg_()).findall(f".//{SVG}path")
    outer, inner = paths[:4], paths[4:]
    assert len(inner) == 4
    for band, tolerance in ((outer, 0.03), (inner, 0.002)):
        for path in band:
            node = _svg.colours(4).index(path.attrib["stroke"])
            drawn = length_of_arcs(path.attrib["d"])
            assert drawn == pytest.approx(ring.shares()[f"n{node + 1}"], abs=tolerance)


def length_of_arcs(path: str) -> float:
    """What part of the circle the arcs of a path cover."""
    total = 0.0
    for arc in path.split("M")[1:]:
        x1, y1, _, _, _, _, _, x2, y2 = map(float, re.findall(r"-?[\d.]+", arc))
        turn = (np.arctan2(y2, x2) - np.arctan2(y1, x1)) / (2 * np.pi)
        total += turn % 1 - _svg._LAP
    return total


def test_fifty_nodes_have_fifty_colours() -> None:
    assert len(set(_svg.colours(50))) == 50


def test_plot_balance_shows_shares_and_keys() -> None:
    ring = Ring({"a": {}, "b": {"weight": 2}}, replication=1)
    keys = [f"key{i}" for i in range(1000)]
    ax = viz.plot_balance(ring, keys)
    assert [bar.get_height() for bar in ax.patches] == list(ring.shares().values())
    fair, points = ax.lines
    assert fair.get_ydata()[:2] == pytest.approx([1 / 3, 2 / 3])
    assert points.get_ydata()[1] == (ring.owners(keys) == 1).mean()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        *("share of the circle", "fair share", "share of 1,000 keys"),
    ]


def test_plot_movement_shows_both_sides_in_the_axes_it_is_given() -> None:
    change = Ring(["a", "b", "c"], replication=2).what_if(add="d", remove="b")
    ax = matplotlib.figure.Figure().subplots()
    assert viz.plot_movement(change, ax=ax) is ax
    before, after = (list(line.get_xdata()) for line in ax.lines)
    assert list(zip(before, after, strict=True)) == list(change.per_node.values())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c", "d"]
