"""The plots: steps per second over the sagas in flight, one panel for each length of saga."""

from __future__ import annotations

from pathlib import Path

from .cases import ENTRANTS, IN_FLIGHT, STEPS
from .targets import Results, rate

STYLES = {
    "ours": {"color": "#0b6e4f", "linewidth": 2.5, "marker": "o"},
    "floor-commit": {"color": "#888888", "linestyle": ":", "marker": "."},
    "floor-batch": {"color": "#888888", "linestyle": "--", "marker": "."},
    "pso": {"color": "#c1440e", "marker": "s"},
    "dbos": {"color": "#2a6f97", "marker": "^"},
    "dbos-default": {"color": "#7fb2d1", "marker": "v", "linestyle": ""},
}


def draw(results: Results, folder: Path) -> list[str]:
    """Write the SVGs and return their names; none where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benches"  # the same figures give the same file
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(STEPS), figsize=(10, 4.2), sharey=True)
    for panel, steps in zip(panels, STEPS, strict=True):
        for entrant in ENTRANTS:
            rates = {n: r for n in IN_FLIGHT if (r := rate(results, entrant.name, steps, n))}
            if entrant.name in STYLES and rates:
                panel.plot(list(rates), list(rates.values()), label=entrant.label, **STYLES[entrant.name])
        panel.set(xscale="log", yscale="log", xlabel="sagas in flight", title=f"{steps} steps per saga")
        panel.set_xticks(IN_FLIGHT, labels=[str(n) for n in IN_FLIGHT])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("durable steps per second")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    name = "benchmarks-postgresql.svg"
    figure.savefig(folder / name, metadata={"Date": None})
    plt.close(figure)
    return [name]
