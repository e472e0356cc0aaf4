"""The bar chart: every scenario's cost as a multiple of Envoy's.

Called by `report`. matplotlib is imported only here and only when a chart is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_COLOURS = {"ours": "#2a6f97", "envoy": "#9aa5b1", "haproxy": "#c9a227", "mitmproxy": "#a44a3f"}
# What is higher would press all others flat: its bar is cut, and its label tells the figure.
_HIGHEST = 3.0


@dataclass(frozen=True, slots=True)
class Bars:
    """One scenario's group: the ratio to Envoy by proxy, and the bound for ours."""

    name: str
    unit: str
    heights: Mapping[str, float]
    bound: float | None


def draw(target: Path, proxies: Sequence[str], groups: Sequence[Bars]) -> Path | None:
    """Draw the groups into a PNG; returns its path, or None where there is nothing to draw or no matplotlib."""
    if not groups:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("bench: no chart: pip install matplotlib (or 'sidecar-mesh[bench]')", file=sys.stderr)
        return None
    figure = Figure(figsize=(max(10.0, 1.1 * len(groups)), 4.5), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(proxies)
    for place, proxy in enumerate(proxies):
        shown = [(at, bars.heights[proxy]) for at, bars in enumerate(groups) if proxy in bars.heights]
        left = [at - 0.4 + (place + 0.5) * width for at, _ in shown]
        drawn = axes.bar(
            left, [min(height, _HIGHEST) for _, height in shown], width * 0.92, label=proxy, color=_COLOURS.get(proxy)
        )
        axes.bar_label(drawn, [f"{height:.2f}" for _, height in shown], fontsize=7, padding=1)
    bounded = [(at, bars.bound) for at, bars in enumerate(groups) if bars.bound]
    for number, (at, bound) in enumerate(bounded):
        axes.hlines(bound, at - 0.42, at + 0.42, colors="black", lw=0.8, ls=":", label="" if number else "our bound")
    axes.axhline(1.0, color="#9aa5b1", linewidth=0.8, zorder=0)
    axes.set_ylim(0, _HIGHEST * 1.08)
    axes.set_ylabel("cost, Envoy = 1 (less is better)")
    axes.set_xticks(range(len(groups)), [f"{bars.name}\n{bars.unit}" for bars in groups], fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(proxies) + 1, loc="upper center", bbox_to_anchor=(0.5, 1.1))
    FigureCanvasAgg(figure).print_png(str(target))
    return target
