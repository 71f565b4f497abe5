"""Draws the report's pictures as SVG. Knows no page; text takes the page's colour and font."""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sim.history import History
from sim.live import human_bytes

# Stands for the colour of the page's text in what matplotlib writes; replaced by `currentColor` afterwards.
TEXT = "#010203"
KINDS = {"local_only": "#9aa0a6", "global": "#5b8def", "localized": "#e07b39"}
LABELS = {"local_only": "local only", "global": "global", "localized": "localized"}
SITES = ("#5b8def", "#e07b39", "#3fa372", "#b367c9", "#c9a227", "#d1495b")
PHASES = {
    "preparing": "#c9cdd2",
    "scanning": "#7cc4d8",
    "joining": "#c9a227",
    "summarizing": "#7a8b2f",
    "training": "#3fa372",
    "uploading": "#d1495b",
    "localizing": "#b367c9",
}
OTHER_PHASE = "#8a7f72"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "geotrain",
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "grid.color": TEXT,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
WIDTH_IN = 5.4


def auc_by_site(history: History, min_auc: Mapping[str, float]) -> str:
    """Bars by site and kind of model; a dash where the localized model should be at least."""

    def draw(axes: Axes) -> None:
        sites = sorted(history.localized)
        values = [history.localized[site].metrics[kind] for site in sites for kind in KINDS]
        for place, (kind, colour) in enumerate(KINDS.items()):
            heights = [history.localized[site].metrics[kind] for site in sites]
            positions = [at + (place - 1) * 0.27 for at in range(len(sites))]
            axes.bar(positions, heights, 0.25, color=colour, label=LABELS[kind])
            for x, y in zip(positions, heights, strict=True):
                axes.text(x, y + 0.002, f"{y:.3f}", ha="center", va="bottom", fontsize=8)
        for at, site in enumerate(sites):
            if site in min_auc:
                label = "wanted, localized" if at == 0 else ""
                axes.hlines(min_auc[site], at + 0.11, at + 0.43, color=TEXT, linewidth=1.6, label=label)
        axes.set_xticks(range(len(sites)), sites)
        # The bars differ by some hundredths, so the axis does not start at 0; it says where it starts.
        low = min([*values, *min_auc.values(), 0.65])
        axes.set_ylim(low - 0.03, max([*values, *min_auc.values()]) + 0.035)
        axes.set_ylabel(f"ROC AUC (axis from {low - 0.03:.2f})")
        axes.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, 1.24), borderaxespad=0)

    return _svg(draw, 3.2)


def loss_by_round(history: History) -> str:
    """A line a site."""

    def draw(axes: Axes) -> None:
        rounds = [each.round for each in history.rounds]
        for site, colour in zip(sorted(history.sites), SITES, strict=False):
            points = [(each.round, each.loss[site]) for each in history.rounds if site in each.loss]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=site)
        axes.set_xticks(rounds)
        axes.set_xlabel("round")
        axes.set_ylabel("mean training loss")
        axes.grid(axis="y")
        axes.legend(ncols=3, loc="upper left", bbox_to_anchor=(0, 1.14), borderaxespad=0)

    return _svg(draw, 3.2)


def timeline(history: History) -> str:
    """What each site did, as bars over time; a blank is waiting for others."""

    def draw(axes: Axes) -> None:
        sites = sorted(history.sites, reverse=True)
        start_s = min((span.start_s for span in history.spans), default=0)
        phases = list(dict.fromkeys([*PHASES, *(span.phase for span in history.spans)]))
        for phase in phases:
            colour = PHASES.get(phase, OTHER_PHASE)
            spans = [span for span in history.spans if span.phase == phase and span.end_s is not None]
            for at, site in enumerate(sites):
                bars = [(s.start_s - start_s, (s.end_s or 0) - s.start_s) for s in spans if s.site == site]
                axes.broken_barh(bars, (at - 0.32, 0.64), color=colour, linewidth=0)
            if spans:
                axes.plot([], [], color=colour, linewidth=6, label=phase)
        axes.set_yticks(range(len(sites)), sites)
        axes.set_ylim(-0.6, len(sites) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds since the job began")
        axes.grid(axis="x")
        axes.legend(ncols=7, loc="upper left", bbox_to_anchor=(0, 1.16), borderaxespad=0, handlelength=0.8)

    return _svg(draw, 2.5, width_in=2 * WIDTH_IN)


def bytes_by_round(history: History) -> str:
    """Bytes up and down of all sites in each round."""

    def draw(axes: Axes) -> None:
        rounds = [each.round for each in history.rounds]
        up = [each.bytes_up for each in history.rounds]
        down = [each.bytes_down for each in history.rounds]
        axes.bar([at - 0.19 for at in rounds], up, 0.36, color=SITES[1], label="up: reports and updates")
        axes.bar([at + 0.19 for at in rounds], down, 0.36, color=SITES[0], label="down: messages and states")
        axes.set_xticks(rounds)
        axes.set_xlabel("round")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human_bytes(value)))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, 1.14), borderaxespad=0)

    return _svg(draw, 3.2)


def _svg(draw: Callable[[Axes], None], height_in: float, width_in: float = WIDTH_IN) -> str:
    """One picture as an <svg> element that scales with its place on the page."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width_in, height_in))
        draw(axes)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", bbox_inches="tight", pad_inches=0.05, transparent=True, metadata={"Date": None}
        )
        plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]*;", "", svg)
    return re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
