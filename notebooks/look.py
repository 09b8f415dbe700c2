"""How the notebooks' plots look: one style, and colours that are told apart with any colour vision."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cli.pictures import COLOURS, INK, QUIET, SERVED

__all__ = ["COLOURS", "INK", "QUIET", "SERVED", "panel", "use"]

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.0,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 10.0,
    "grid.color": "#E3E6EA",
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def use() -> None:
    """Take the style from here on."""
    plt.rcParams.update(_STYLE)  # type: ignore[arg-type] # its keys are a type of three hundred literals


def panel(title: str, x: str, y: str, width: float = 7.2, height: float = 3.6) -> tuple[Figure, Axes]:
    """One plot with its words; sizes in inches."""
    figure, axes = plt.subplots(figsize=(width, height))
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes
