"""House style of the figures: small, legible, and readable when printed in grey (markers and line styles differ, not colours alone)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl

#: Okabe and Ito's colours, told apart by all common kinds of colour vision; ordered so that neighbours differ in lightness too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (4, 1.6)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
INK, QUIET = "#222222", "#8a8a8a"
#: Colours of a density: lightness falls steadily, so that it reads the same in grey.
DENSITY = "Blues"
#: Letters of the smallest print that fit on an inch.
LETTERS_PER_INCH = 21

RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


class Look(NamedTuple):
    """How one series is drawn."""

    colour: str
    marker: str
    dash: Any
    fill: str | None = None  # of the markers; None = the colour


def look(index: int) -> Look:
    """The look of series ``index`` (0, 1, ...): colour, marker and dash; no two of the first 28 look alike, neighbours not even in grey."""
    return Look(COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)], DASHES[index % len(DASHES)])


@contextmanager
def house_style() -> Iterator[None]:
    """Everything drawn inside is in the house style; the reader's own settings come back afterwards."""
    with mpl.rc_context(RC):
        yield
