"""Figures of spectra: curves, sticks of modes, and references beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import DataError
from etnpot.plots import MUTED, finish, plain_figure, style_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "plot_spectra"]

Floats = NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_LABELS = {"infrared": "absorption\n(km/mol per 1/cm)", "raman": "Raman activity\n(Å⁴/amu per 1/cm)"}


def plot_spectra(
    curves: Mapping[str, Sequence[tuple[str, Floats, Floats]]],
    path: str | Path | None = None,
    *,
    sticks: Mapping[str, tuple[Floats, Floats]] | None = None,
    title: str | None = None,
) -> Figure:
    """One panel for each kind of spectrum.

    Parameters
    ----------
    curves : mapping
        By kind ("infrared", "raman"): (label, wavenumbers in 1/cm, intensities) of each curve.
    path : path, optional
        Where to write the figure.
    sticks : mapping, optional
        By kind: wavenumbers and intensities of modes, drawn as lines scaled to the panel.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    kinds = [kind for kind in _LABELS if curves.get(kind)]
    if not kinds:
        raise DataError("there is no spectrum to draw: neither dipoles nor polarizabilities are known")
    figure = plain_figure(7.5, 0.6 + 2.6 * len(kinds))
    for row, kind in enumerate(kinds):
        axis = figure.add_subplot(len(kinds), 1, row + 1)
        top = max(float(y.max(initial=0.0)) for _, _, y in curves[kind]) or 1.0
        for k, (label, x, y) in enumerate(curves[kind]):
            axis.plot(x, y, color=COLOURS[k % len(COLOURS)], lw=1.3, label=label, ls="-" if k == 0 else "--")
        if sticks and kind in sticks:
            x, y = sticks[kind]
            axis.vlines(x, 0.0, 0.9 * top * y / max(float(y.max(initial=0.0)), 1e-300), color=MUTED, lw=0.8)
        axis.set_ylim(0.0, 1.08 * top)
        axis.set_ylabel(_LABELS[kind])
        style_axis(axis)
        if len(curves[kind]) > 1:
            axis.legend(frameon=False, fontsize=8)
        if row == len(kinds) - 1:
            axis.set_xlabel("wavenumber (1/cm)")
    return finish(figure, path, title)
