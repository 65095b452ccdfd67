"""Pictures of ``docs/PERFORMANCE.md``."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from bench.peers import NAMES
from bench.performance.page import shares_of_cpu
from bench.records import Record
from wholetrack_training.results.plots import save, style


def draw_cpu(track: Record, path: Path) -> None:
    """Draw the shares of the CPU time of a request as one bar."""
    shares = list(shares_of_cpu(track["cpu_share_of_service"]))
    with style():
        figure = Figure(figsize=(6, 1.2), layout="constrained")
        axes, left = figure.subplots(), 0.0
        for title, share in shares:
            axes.barh([0], [share], left=left, label=title.partition(" (")[0])
            left += share
        axes.set_yticks([])
        axes.set_xlabel("% of the CPU time of a request over HTTP")
        axes.legend(frameon=False, ncols=len(shares), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=7)
        save(figure, path)


def draw_peers(ratios: Record, path: Path) -> None:
    """Draw the throughput relative to each framework as bars with their ranges.

    Args:
        ratios: Spread of the ratio by framework and number of clients.
        path: File to write.
    """
    with style():
        figure = Figure(figsize=(6, 2.4), layout="constrained")
        axes = figure.subplots()
        for i, (name, by_clients) in enumerate(ratios.items()):
            spreads = by_clients.values()
            positions = [j + 0.25 * (i - 1) for j in range(len(spreads))]
            medians = [spread["median"] for spread in spreads]
            below = [spread["median"] - spread["min"] for spread in spreads]
            above = [spread["max"] - spread["median"] for spread in spreads]
            axes.bar(positions, medians, width=0.22, yerr=[below, above], capsize=2, label=NAMES[name])
            axes.set_xticks(range(len(spreads)), [f"{n} client" if n == "1" else f"{n} clients" for n in by_clients])
        axes.axhline(1, color="k", linewidth=0.8)
        axes.set_ylabel("throughput of the service\nrelative to the framework")
        axes.legend(frameon=False)
        save(figure, path)
