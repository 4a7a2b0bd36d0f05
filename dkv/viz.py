"""Pictures of rings with matplotlib: `pip install numpy matplotlib`.

Each function draws into `ax`, by default into a new figure, and returns it for further changes.
The colour of a node is the one that it has in the picture of its ring.
"""

from collections.abc import Iterable

from dkv._svg import colours
from dkv.ring import Key, Ring, WhatIf

try:
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter
except ImportError as error:
    raise ImportError("dkv.viz needs matplotlib and NumPy: pip install numpy matplotlib") from error


def plot_balance(ring: Ring, keys: Iterable[Key] | None = None, *, ax: Axes | None = None) -> Axes:
    """The share of each node as a bar, and what would be fair by the weights as a line.

    With `keys`, points show the fraction of these keys that each node owns.

    >>> ax = plot_balance(Ring(["n1", "n2", "n3"]), keys=["a", "b", "c"])
    >>> len(ax.patches)
    3
    """
    if ax is None:
        ax = _new_axes(width=max(6.0, 0.28 * len(ring.nodes)))
    x = np.arange(len(ring.nodes))
    ax.bar(x, list(ring.shares().values()), color=colours(len(x)))
    tokens = np.array([len(ring.tokens(node)) for node in ring.nodes])
    ax.step(
        [-0.5, *(x + 0.5)],
        [*(tokens / tokens.sum()), tokens[-1] / tokens.sum()],
        where="post",
        color="black",
        linewidth=1,
        linestyle="--",
        label="fair share",
    )
    if keys is not None:
        counts = np.bincount(ring.owners(keys), minlength=len(x))
        label = f"share of {counts.sum():,} keys"
        ax.plot(x, counts / counts.sum(), "o", color="black", markersize=4, label=label)
    _name_nodes(ax, list(ring.nodes))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.margins(y=0.25)  # the legend stands above the bars
    bars = Patch(color="0.7", label="share of the circle")
    ax.legend(handles=[bars, *ax.lines], loc="upper center", ncols=3, frameon=False)
    return ax


def plot_movement(change: WhatIf, *, ax: Axes | None = None) -> Axes:
    """How much each node holds before and after a change: a circle, and a dot behind a line.

    >>> ring = Ring(["n1", "n2", "n3", "n4"], replication=2)
    >>> plot_movement(ring.what_if(add="n5")).get_title()
    '20.1 % of all replicas move'
    """
    nodes = list(change.per_node)
    if ax is None:
        ax = _new_axes(width=6.0, height=0.9 + 0.28 * len(nodes))
    y = np.arange(len(nodes))
    before, after = np.array(list(change.per_node.values())).T
    ax.hlines(y, before, after, color="tab:blue", linewidth=2)
    ax.plot(before, y, "o", color="tab:blue", markerfacecolor="white", label="before")
    ax.plot(after, y, "o", color="tab:blue", label="after")
    ax.set_yticks(y, nodes)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.set_xlabel("share of all keys of which it holds a replica")
    ax.set_title(f"{change.moved:.1%} of all replicas move".replace("%", " %"))
    ax.legend(frameon=False)
    return _plain(ax)


def _new_axes(width: float, height: float = 3.2) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _plain(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _name_nodes(ax: Axes, nodes: list[str]) -> None:
    crowded = sum(map(len, nodes)) > 60
    ax.set_xticks(range(len(nodes)), nodes, rotation=90 if crowded else 0)
    ax.set_xlim(-0.6, len(nodes) - 0.4)
    _plain(ax)
