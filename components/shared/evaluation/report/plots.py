"""The diagrams of the report, as SVG in colours that follow the light or dark theme of the page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from components.shared.evaluation.document import Bin
from components.shared.models.document import Epoch

# Matplotlib cannot draw in CSS variables: it draws in these unique colours, which are then replaced.
_INK, _LINE, _GOOD, _BAD, _SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_THEME = {
    _INK: "var(--muted)",
    _LINE: "var(--line)",
    _GOOD: "var(--good)",
    _BAD: "var(--bad)",
    _SECOND: "var(--second)",
}
_VALIDATION = ("validation", _GOOD)
_GOOD_PIXEL, _BAD_PIXEL = "#2f81f7", "#e5534b"  # of a bitmap, readable on both themes
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "torch2kubeflow",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
}


def losses(epochs: Sequence[Epoch], best_epoch: int) -> str:
    """Draw the loss on the training and the validation split by epoch."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _over_epochs(epochs, best_epoch, {"train_loss": ("training", _SECOND), "val_loss": _VALIDATION})
        axes.set_ylabel("loss")
        return _svg(figure)


def accuracies(epochs: Sequence[Epoch], best_epoch: int) -> str:
    """Draw the accuracy on the validation split by epoch."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _over_epochs(epochs, best_epoch, {"val_accuracy": _VALIDATION})
        axes.set_ylabel("accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        return _svg(figure)


def trials(curves: Mapping[str, tuple[str, Sequence[Epoch]]], best: str) -> str:
    """Draw the validation accuracy of a sweep's trials by epoch; `curves` maps names to state and epochs."""
    looks = {
        "best": (f"the best, trial {best}", _GOOD, "o", 2.4),
        "done": ("trained to the end", _INK, "o", 1.2),
        "stopped": ("stopped early", _SECOND, "X", 1.2),
    }
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 4))
        axes: Axes = figure.subplots()
        for name, (state, epochs) in sorted(curves.items(), key=lambda curve: curve[0] == best):
            label, colour, marker, width = looks["best" if name == best else state]
            numbers = [epoch.epoch for epoch in epochs]
            values = [epoch.val_accuracy for epoch in epochs]
            (line,) = axes.plot(numbers, values, color=colour, linewidth=width, label=label)
            line.set(marker=marker, markevery=[-1], markersize=6)
            end = (numbers[-1], values[-1])
            axes.annotate(name, end, (7, 0), textcoords="offset points", va="center", color=colour)
        axes.set(xlabel="epoch", ylabel="accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axes.legend(once.values(), once.keys(), loc="lower right")
        return _svg(figure)


def _over_epochs(
    epochs: Sequence[Epoch], best_epoch: int, curves: Mapping[str, tuple[str, str]]
) -> tuple[Figure, Axes]:
    """Draw `curves`, which map names of figures in the history to label and colour."""
    figure = Figure(figsize=(4.6, 2.9))
    axes: Axes = figure.subplots()
    numbers = [epoch.epoch for epoch in epochs]
    for name, (label, colour) in curves.items():
        axes.plot(numbers, [getattr(epoch, name) for epoch in epochs], "o-", color=colour, label=label)
    axes.axvline(best_epoch, color=_INK, linestyle=":", linewidth=1.2, label=f"best epoch ({best_epoch})")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend()
    return figure, axes


def reliability(bins: Sequence[Bin]) -> str:
    """Draw accuracy against confidence by bin and, below it, the number of predictions in each bin."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 3.9))
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        lows = [b.low for b in bins]
        widths = [b.high - b.low for b in bins]
        for axes, heights in ((above, [b.accuracy for b in bins]), (below, [b.images for b in bins])):
            axes.bar(lows, heights, width=widths, align="edge", color=_GOOD, edgecolor=_LINE)
        above.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1.2, label="perfectly calibrated")
        above.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o", color=_BAD, label="mean of a bin")
        above.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="accuracy")
        above.legend(loc="upper left")
        below.set(yscale="log", ylim=(0.8, None), xlabel="confidence", ylabel="images")
        below.yaxis.set_major_formatter("{x:,.0f}")
        below.minorticks_off()
        for axis in (above.xaxis, above.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        return _svg(figure)


def seconds(steps: Mapping[str, float]) -> str:
    """Draw how long each step took, the slowest on top."""
    slowest = sorted(steps.items(), key=lambda item: item[1])
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 0.6 + 0.4 * len(slowest)))
        axes = figure.subplots()
        bars = axes.barh([name for name, _ in slowest], [spent for _, spent in slowest], height=0.6, color=_GOOD)
        axes.bar_label(bars, [f"{spent:,.1f} s" for _, spent in slowest], padding=4)
        axes.margins(x=0.15)
        axes.grid(visible=False)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
        return _svg(figure)


def confusion(matrix: Sequence[Sequence[int]]) -> str:
    """Draw a confusion matrix of many classes; a cell is as dense as the cube root of its share of the row."""
    counts = np.array(matrix)
    pixels = np.zeros((*counts.shape, 4))
    pixels[:] = to_rgba(_BAD_PIXEL)
    pixels[np.diag_indices(len(counts))] = to_rgba(_GOOD_PIXEL)
    pixels[:, :, 3] = np.cbrt(counts / counts.sum(axis=1, keepdims=True))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.5, 5.5))
        axes = figure.subplots()
        axes.imshow(pixels, interpolation="nearest")
        axes.grid(visible=False)
        axes.set(xlabel="predicted class (number)", ylabel="true class (number)")
        return _svg(figure)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for drawn, variable in _THEME.items():
        svg = svg.replace(drawn, variable)
    return svg
