"""Figures of the randomisation study: curves by layer, boxes for single layers, bars for labels, grids of maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba

from saliency_checks.studies.figures import COLOURS, DIVERGING, MARKERS, figure
from saliency_checks.studies.table import Table

SHOWN = {
    "spearman": "signed rank", "abs_spearman": "abs rank", "cosine": "cosine", "ssim": "SSIM, either sign",
    "hog": "HOG rank",
}  # fmt: skip
SHORT = {
    "gradient": "Gradient", "smoothgrad": "SmoothGrad", "guided_backprop": "Guided backprop", "grad_cam": "Grad-CAM",
    "guided_grad_cam": "Guided Grad-CAM", "integrated_gradients": "Integrated gradients",
    "input_x_gradient": "Input x gradient", "smoothgrad_ig": "SmoothGrad-IG", "input_x_noise": "Input x noise (null)",
}  # fmt: skip
NULL = "input_x_noise"
MOST_TICKS, MOST_BOXES, MOST_MAPS = 9, 8, 10  # more steps than these cannot be read in one figure
LONG = 18  # letters of a layer's name


def label(method: str) -> str:
    return SHORT.get(method, method)


def layer(state: str) -> str:
    """A layer's name as an axis has room for it: the block that it lies in, up to its number or to two words."""
    words = state.split(".")
    numbered = (i for i, word in enumerate(words) if re.search(r"\d", word) and (i or not word.isdigit()))
    name = ".".join(words[: next(numbered, 1) + 1]) or "bare parameters"
    return name if len(name) <= LONG else f"~{name[1 - LONG :]}"


def spread(states: Sequence[str], most: int) -> list[str]:
    """So many of the states at most, evenly, the first and the last among them."""
    if len(states) <= most:
        return list(states)
    return [states[i] for i in np.linspace(0, len(states) - 1, most).round().astype(int)]


def curves(own: Table, file: Path, network: str) -> None:
    """Similarity by layer, drawn again one after the other; a row for each direction, a column for each measure."""
    orders = [order for order in ("top_down", "bottom_up") if len(own.where(order=order).rows)]
    size = (2.9 * len(SHOWN), 3.2 * len(orders) + 0.6)
    with figure(file, rows=len(orders), columns=len(SHOWN), size=size, sharey=True) as (whole, axes):
        for line, order in zip(axes, orders, strict=True):
            for ax, (measure, title) in zip(line, SHOWN.items(), strict=True):
                _lines(ax, own.where(order=order), measure)
                ax.set_title(f"{title}, {order.replace('_', ' ')}")
            line[0].set_ylabel("similarity to the trained network's map")
        handles, labels = axes[0][0].get_legend_handles_labels()
        whole.legend(handles, labels, loc="outside lower center", ncols=5)
        whole.suptitle(f"{network}: layers drawn again, cumulatively (bars: 95 % interval over redraws and images)")


def _lines(ax: Any, rows: Table, measure: str) -> None:
    states = rows.states()
    places = np.arange(1, len(states) + 1)
    for i, method in enumerate(rows.distinct("method")):
        own = rows.where(method=method)
        mean, low, high = np.array([own.where(state=state).mean(measure) for state in states]).T
        ax.errorbar(
            places + 0.03 * (i - 4), mean, yerr=[mean - low, high - mean],
            markersize=4, linewidth=1.2, elinewidth=0.8, ecolor=to_rgba(_style(method, rows)["color"], 0.5),
            label=label(method), **_style(method, rows),
        )  # fmt: skip
    ticks = spread(states, MOST_TICKS)
    ax.set_xticks(
        [states.index(state) + 1 for state in ticks], map(layer, ticks), rotation=30, ha="right", rotation_mode="anchor"
    )
    ax.axhline(0, color="k", linewidth=0.6)
    ax.set_ylim(-0.3, 1.05)


def _style(method: str, rows: Table) -> dict[str, Any]:
    """A colour, and a marker of its own; the null is the dashed grey line."""
    if method == NULL:
        return {"color": "#999999", "linestyle": "--", "marker": "", "zorder": 3}  # over what coincides with it
    i = [m for m in rows.distinct("method") if m != NULL].index(method)
    solid = len(COLOURS) - 1  # the last one is the null's grey
    return {"color": COLOURS[i % solid], "marker": MARKERS[i % len(MARKERS)], "linestyle": "-" if i < solid else ":"}


def boxes(own: Table, file: Path, network: str) -> None:
    """Each layer alone drawn again."""
    rows = own.where(order="independent")
    states, methods = spread(rows.states(), MOST_BOXES), rows.distinct("method")
    wide = 0.8 / len(methods)
    with figure(file, rows=2, size=(max(7, 1.6 * len(states)), 6.4), sharex=True) as (whole, axes):
        for ax, measure in zip(axes[:, 0], ("spearman", "abs_spearman"), strict=True):
            for i, method in enumerate(methods):
                found = [rows.where(method=method, state=s).rows[measure].to_numpy() for s in states]
                colour = _style(method, rows)["color"]
                drawn = ax.boxplot(
                    found, positions=np.arange(len(states)) + (i - (len(methods) - 1) / 2) * wide, widths=wide * 0.85,
                    patch_artist=True, showfliers=False, medianprops={"color": "k"}, manage_ticks=False,
                    boxprops={"facecolor": colour, "alpha": 0.8, "hatch": "////" if method == NULL else None},
                )  # fmt: skip
                drawn["boxes"][0].set_label(label(method))
            ax.set_xticks(range(len(states)), map(layer, states))
            ax.axhline(0, color="k", linewidth=0.6)
            ax.set_title(SHOWN[measure])
            ax.set_ylabel("similarity")
        handles, labels = axes[0][0].get_legend_handles_labels()
        whole.legend(handles, labels, loc="outside lower center", ncols=5)
        whole.suptitle(f"{network}: one group of layers drawn again, all others as trained")


def bars(rows: Table, file: Path) -> None:
    """Networks that learned permuted labels, beside those that learned the same task again: a bar for each of them.

    There are two or so, too few for an interval over networks: the intervals are those of the images.
    """
    networks = rows.distinct("network")
    with figure(file, rows=len(networks), columns=2, size=(10, 2.6 * len(networks) + 0.6), sharey=True) as (_, axes):
        for line, network in zip(axes, networks, strict=True):
            own = rows.where(network=network)
            methods = own.distinct("method")
            for ax, measure in zip(line, ("spearman", "abs_spearman"), strict=True):
                _beside_each_other(ax, own, methods, measure)
                ax.set_xticks(range(len(methods)), [label(m) for m in methods], rotation=30, ha="right")
                ax.set_title(f"{network}, {SHOWN[measure]}")
                ax.axhline(0, color="k", linewidth=0.6)
                ax.set_ylim(-0.5, 1.25)
            line[0].set_ylabel("similarity")
        axes[0][0].legend(loc="upper right", ncols=2, fontsize=7)


def _beside_each_other(ax: Any, own: Table, methods: Sequence[str], measure: str) -> None:
    twins = [(s, r) for s in ("same task", "permuted labels") for r in own.where(state=s).distinct("redraw")]
    wide = 0.8 / len(twins)
    for i, (state, redraw) in enumerate(twins):
        found = [own.where(method=m, state=state, redraw=redraw).mean(measure) for m in methods]
        mean, low, high = np.array(found).T
        places = np.arange(len(methods)) + (i - (len(twins) - 1) / 2) * wide
        colour, name = COLOURS[int(state != "same task")], None if redraw else state
        errors = [mean - low, high - mean]
        ax.bar(places, mean, 0.92 * wide, yerr=errors, color=colour, label=name, error_kw={"linewidth": 0.8})


def grid(own: Table, file: Path, network: str) -> None:
    """The maps of one image: a row for each method, a column for each state."""
    rows = own.where(order="pictures")
    methods, every = rows.distinct("method"), rows.where(method=rows.distinct("method")[0]).states()
    states = [*every[:2], *spread(every[2:], MOST_MAPS)]  # the image and the trained network's map are always there
    size = (1.15 * len(states) + 1.6, 1.15 * len(methods) + 0.6)
    with figure(file, rows=len(methods), columns=len(states), size=size) as (whole, axes):
        for line, method in zip(axes, methods, strict=True):
            for ax, state in zip(line, states, strict=True):
                picture = np.array(rows.where(method=method, state=state).rows["picture"].to_pylist()[0])
                if state == "image":
                    ax.imshow(picture, cmap="gray")
                else:
                    top = np.quantile(np.abs(picture), 0.99) or 1.0
                    ax.imshow(picture / top, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
                ax.set_xticks([])
                ax.set_yticks([])
                ax.spines[:].set_visible(False)
            line[0].set_ylabel(label(method), rotation=0, ha="right", va="center")
        for ax, state in zip(axes[0], states, strict=True):
            ax.set_title(layer(state), loc="center", fontsize=8 if len(states) <= MOST_MAPS else 6)
        whole.suptitle(
            f"{network}: layers drawn again from the output down (purple for the class, orange against it)", fontsize=9
        )
