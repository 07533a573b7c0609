"""Charts by matplotlib's objects alone: no window system, and no state outside a figure.

This is the only module that imports all of matplotlib, which takes its time: import it when something is drawn.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.typing import RcKeyType

Dash = Literal["-", "--", "-.", ":"]

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Told apart by the colour-blind too (Okabe and Ito, 2008); markers and dashes tell them apart in print."""
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: Final[tuple[Dash, ...]] = ("-", "--", "-.", ":")
_INK, FAINT, _GRID = "#22262b", "#5c6670", "#e3e7eb"
_STYLE: Final[dict[RcKeyType, Any]] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 9.5,
    "text.parse_math": False,  # a name with dollar signs in it is a name
    "text.color": _INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "svg.fonttype": "path",  # whoever looks at it has whichever fonts
    "svg.hashsalt": "perimeter",  # the same result makes the same file
}
_PNG_DPI: Final = 220


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and the words that go with it."""

    name: str
    """For a file: `frontier-ttft-p50`."""
    title: str
    caption: str
    drawing: Drawing

    def to_svg(self) -> bytes:
        """An SVG document whose text is paths."""
        return self._saved("svg", metadata={"Date": None, "Creator": None})

    def to_png(self) -> bytes:
        """For slides and documents."""
        return self._saved("png", dpi=_PNG_DPI, metadata={"Software": None})

    def _saved(self, kind: str, **options: Any) -> bytes:
        to = io.BytesIO()
        with styled(), warnings.catch_warnings():
            # a name in letters that the font lacks is drawn as boxes; the page beside it has it in full
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.drawing.savefig(to, format=kind, facecolor="white", **options)
        return to.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """Our style and nothing of a person's own settings: the same result makes the same charts everywhere."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def empty(width: float, height: float) -> Drawing:
    """A drawing of so many inches with nothing on it."""
    drawing = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing


def sheet() -> tuple[Drawing, Axes]:
    """For one of two charts side by side."""
    drawing = empty(5.4, 3.5)
    return drawing, drawing.add_subplot()


def looks() -> Iterable[tuple[str, str, Dash]]:
    """Colour, marker and dashes, for ever: no two of the first eight results look alike, nor many after them."""
    dashes = (dash for dash in cycle(_DASHES) for _ in COLOURS)
    return zip(cycle(COLOURS), cycle(_MARKERS), dashes, strict=False)
