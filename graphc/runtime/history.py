"""What a training leaves behind: its losses, and norms and weights where they were recorded."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from graphc.errors import UsageError
from graphc.runtime.curve import curves_svg
from graphc.runtime.spread import Spread, spreads_svg
from graphc.structs import dataclass, field

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """How a training went.

    losses: the mean loss a sample of each epoch. step_losses: the loss of each step. outputs: the mean of each further
    output, a row an epoch. validation: the mean loss a sample on the validation data after each epoch. seconds: in all.

    Of a step compiled with ``record=True`` also: gradient_norms, for each parameter the root of the mean square, over
    each epoch's steps, of its gradient's norm; weights: how each parameter's elements are spread after each epoch.
    """

    losses: list[float]
    step_losses: Doubles
    outputs: dict[str, Doubles]
    validation: list[float]
    seconds: float
    gradient_norms: dict[str, Doubles] = field(default_factory=dict)
    weights: dict[str, list[Spread]] = field(default_factory=dict)

    def plot(self, path: str = "") -> object:
        """A Matplotlib figure of the losses by epoch, saved to ``path`` where one is given.

        Raises: UsageError where Matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise UsageError("history.plot: needs Matplotlib: pip install matplotlib") from error
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        epochs = range(1, len(self.losses) + 1)
        axes.plot(epochs, self.losses, label="training", marker="." if len(self.losses) < 50 else "")
        if self.validation:
            axes.plot(epochs, self.validation, label="validation", marker="." if len(self.losses) < 50 else "")
            axes.legend()
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean loss a sample")
        if path:
            figure.savefig(path)
        return figure

    def _repr_html_(self) -> str:
        """What a notebook shows: the losses as a curve and the last one in words; gradients and weights if recorded."""
        curves = {"training": self.losses} | ({"validation": self.validation} if self.validation else {})
        parts = [f"<p>{escape(repr(self))}</p>{curves_svg(curves)}"]
        if self.gradient_norms:
            norms = curves_svg({name: norm.tolist() for name, norm in self.gradient_norms.items()})
            parts.append(f"<h4>Norms of the gradients</h4>{norms}")
            parts.append(f"<h4>Weights: all, nine tenths, half, the middle</h4>{spreads_svg(self.weights)}")
        return "".join(parts)

    def __repr__(self) -> str:
        last = f", last loss {self.losses[-1]:.6g}" if self.losses else ""
        return f"<history: {len(self.losses)} epochs, {len(self.step_losses)} steps{last}, {self.seconds:.3g} s>"
