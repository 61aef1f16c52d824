"""The result of ``training_step.py`` as a picture: time and memory of each arm over its host's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salt_lab.report.style import house_style, look


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel for time, one for memory, and the counted arithmetic as a line across each group of the first.

    Args:
        rows: of ``training_step.json``; those that were not measured are left out.
        path: the PNG.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    measured = [row for row in rows if "s" in row]
    groups = list(dict.fromkeys((row["host"], row["batch"]) for row in measured))
    names = [name for name in dict.fromkeys(row["arm"] for row in measured) if name != "host"]
    with house_style():
        figure, panels = plt.subplots(1, 2, figsize=(1.6 + 1.6 * len(groups), 2.4), sharey=True, layout="constrained")
        for axes, key, title in zip(panels, ("s", "peak_mib"), ("time of a step / host", "memory of a step / host"), strict=True):
            _bars(axes, measured, groups, names, key)
            axes.set_title(title, loc="left")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(path)
        plt.close(figure)


def _bars(axes: Any, rows: list[dict[str, Any]], groups: list[tuple[str, int]], names: list[str], key: str) -> None:
    found = {(row["host"], row["batch"], row["arm"]): row for row in rows}
    thick = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        at = [place + (index - (len(names) - 1) / 2) * thick for place in range(len(groups))]
        ratios = [found[(*group, name)][key] / found[(*group, "host")][key] if (*group, name) in found else 0.0 for group in groups]
        axes.bar(at, ratios, thick * 0.92, color=look(index).colour, label=name)
        for x, ratio in zip(at, ratios, strict=True):
            axes.annotate(f"{ratio:.2f}" if ratio else "", (x, ratio), ha="center", va="bottom", fontsize=5.5)
    for place, group in enumerate(groups if key == "s" else []):
        own = found[(*group, "host")]["gmac_forward"]
        most = max(row["gmac_forward"] for row in rows if (row["host"], row["batch"]) == group) / own
        label = "multiply-adds, counted" if place == 0 else None
        axes.plot([place - 0.45, place + 0.45], [most, most], color="#222222", linestyle=(0, (4, 1.6)), label=label)
    axes.axhline(1.0, color="#8a8a8a", linewidth=0.6)
    axes.set_xticks(range(len(groups)), [f"{host}, batch {batch}" for host, batch in groups])
    axes.grid(axis="x", visible=False)
