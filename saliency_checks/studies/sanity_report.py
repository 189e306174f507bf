"""Tables and figures of the randomisation study, from what its store holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from saliency_checks.studies import published
from saliency_checks.studies.figures import COLOURS, DIVERGING, MARKERS, figure
from saliency_checks.studies.store import Store

Values = NDArray[np.float64]
SHOWN = {"spearman": "signed rank", "abs_spearman": "abs rank", "ssim": "SSIM, either sign", "hog": "HOG rank"}
SHORT = {
    "gradient": "Gradient", "smoothgrad": "SmoothGrad", "guided_backprop": "Guided backprop", "grad_cam": "Grad-CAM",
    "guided_grad_cam": "Guided Grad-CAM", "integrated_gradients": "Integrated gradients",
    "input_x_gradient": "Input x gradient", "smoothgrad_ig": "SmoothGrad-IG", "input_x_noise": "Input x noise (null)",
}  # fmt: skip
ERROR = 0.025  # of each limit
NULL = "input_x_noise"


def label(method: str) -> str:
    return SHORT.get(method, method)


@dataclass(frozen=True)
class Table:
    """The rows of a study, to be asked for."""

    rows: pa.Table

    def where(self, **equal: Any) -> Table:
        keep = None
        for name, value in equal.items():
            test = pc.equal(self.rows[name], value)
            keep = test if keep is None else pc.and_(keep, test)
        return Table(self.rows.filter(keep) if keep is not None else self.rows)

    def distinct(self, column: str) -> list[Any]:
        """In the order of their first row."""
        return list(dict.fromkeys(self.rows[column].drop_null().to_pylist()))

    def states(self) -> list[str]:
        """Names of the states in the order of their steps."""
        pairs = zip(self.rows["step"].to_pylist(), self.rows["state"].to_pylist(), strict=True)
        return [state for _, state in sorted(set(pairs))]

    def block(self, measure: str) -> Values:
        """Values (redraws, images)."""
        redraws = self.distinct("redraw")
        return np.array([self.where(redraw=r).rows.sort_by("image")[measure].to_numpy() for r in redraws])

    def mean(self, measure: str) -> tuple[float, float, float]:
        """Mean, lower and upper limit over images and redraws; NaN where there are no rows."""
        if not len(self.rows):
            return float("nan"), float("nan"), float("nan")
        return resampled(self.block(measure))


def resampled(values: Values, draws: int = 1000) -> tuple[float, float, float]:
    """Mean and its 95 % percentile interval: redraws are drawn with replacement, then images, because those of one
    redraw share their weights. With three redraws it is too narrow; the checks use wider ones."""
    rng = np.random.default_rng(values.size)
    redraws, images = (rng.integers(size, size=(draws, size)) for size in values.shape)
    means = values[redraws[:, :, None], images[:, None, :]].mean((1, 2))
    low, high = np.quantile(means, (ERROR, 1 - ERROR))
    return float(values.mean()), float(low), float(high)


def write(store: Store) -> None:
    whole = store.table()
    table = Table(whole)
    store.save("values.parquet", whole.drop_columns([c for c in ("picture",) if c in whole.column_names]))
    networks = [n for n in table.distinct("network") if len(table.where(network=n, order="top_down").rows)]
    for network in networks:
        own = table.where(network=network)
        _curves(own, store.out / f"cascade_{network}.png", network)
        _boxes(own, store.out / f"independent_{network}.png", network)
        _grid(own, store.out / f"maps_{network}.png", network)
    _bars(table.where(order="permuted"), store.out / "permuted_labels.png")
    store.write("summary.md", "\n".join(_summary(table, networks)) + "\n")


def _curves(own: Table, file: Path, network: str) -> None:
    orders = [order for order in ("top_down", "bottom_up") if len(own.where(order=order).rows)]
    with figure(file, rows=len(orders), columns=4, size=(12, 3.2 * len(orders) + 0.6), sharey=True) as (whole, axes):
        for row, order in zip(axes, orders, strict=True):
            for ax, (measure, title) in zip(row, SHOWN.items(), strict=True):
                _lines(ax, own.where(order=order), measure)
                ax.set_title(f"{title}, {order.replace('_', ' ')}")
            row[0].set_ylabel("similarity to the trained network's map")
        handles, labels = axes[0][0].get_legend_handles_labels()
        whole.legend(handles, labels, loc="outside lower center", ncols=5)
        whole.suptitle(f"{network}: layers drawn again, cumulatively (bars: 95 % interval over redraws and images)")


def _lines(ax: Any, rows: Table, measure: str) -> None:
    for i, method in enumerate(rows.distinct("method")):
        own = rows.where(method=method)
        states = own.states()
        mean, low, high = np.array([own.where(state=state).mean(measure) for state in states]).T
        places = np.arange(1, len(states) + 1)
        ax.errorbar(
            places + 0.03 * (i - 4), mean, yerr=np.abs([mean - low, high - mean]),
            markersize=4, linewidth=1.2, elinewidth=0.8, label=label(method), **_style(method, rows),
        )  # fmt: skip
        ax.set_xticks(places, states, rotation=30, ha="right", rotation_mode="anchor")
    ax.axhline(0, color="k", linewidth=0.6)
    ax.set_ylim(-0.25, 1.05)


def _style(method: str, rows: Table) -> dict[str, Any]:
    """A colour, and a marker of its own; the null is the dashed grey line."""
    if method == NULL:
        return {"color": "#999999", "linestyle": "--", "marker": ""}
    i = [m for m in rows.distinct("method") if m != NULL].index(method)
    solid = len(COLOURS) - 1  # the last one is the null's grey
    return {"color": COLOURS[i % solid], "marker": MARKERS[i % len(MARKERS)], "linestyle": "-" if i < solid else ":"}


def _boxes(own: Table, file: Path, network: str) -> None:
    rows = own.where(order="independent")
    states, methods = rows.states(), rows.distinct("method")
    wide = 0.8 / len(methods)
    with figure(file, columns=2, size=(12, 3.8), sharey=True) as (whole, axes):
        for ax, measure in zip(axes[0], ("spearman", "abs_spearman"), strict=True):
            for i, method in enumerate(methods):
                found = [rows.where(method=method, state=s).rows[measure].to_numpy() for s in states]
                colour = _style(method, rows)["color"]
                drawn = ax.boxplot(
                    found, positions=np.arange(len(states)) + (i - (len(methods) - 1) / 2) * wide, widths=wide * 0.85,
                    patch_artist=True, showfliers=False, medianprops={"color": "k"}, manage_ticks=False,
                    boxprops={"facecolor": colour, "alpha": 0.8, "hatch": "////" if method == NULL else None},
                )  # fmt: skip
                drawn["boxes"][0].set_label(label(method))
            ax.set_xticks(range(len(states)), states)
            ax.axhline(0, color="k", linewidth=0.6)
            ax.set_title(SHOWN[measure])
        axes[0][0].set_ylabel("similarity")
        handles, labels = axes[0][0].get_legend_handles_labels()
        whole.legend(handles, labels, loc="outside lower center", ncols=5)
        whole.suptitle(f"{network}: one layer drawn again, all others as trained")


def _bars(rows: Table, file: Path) -> None:
    networks = rows.distinct("network")
    if not networks:
        return
    with figure(file, rows=len(networks), columns=2, size=(10, 2.6 * len(networks) + 0.6), sharey=True) as (_, axes):
        for line, network in zip(axes, networks, strict=True):
            methods = rows.where(network=network).distinct("method")
            for ax, measure in zip(line, ("spearman", "abs_spearman"), strict=True):
                for i, state in enumerate(("same task", "permuted labels")):
                    found = [rows.where(network=network, method=m, state=state).mean(measure) for m in methods]
                    mean, low, high = np.array(found).T
                    places = np.arange(len(methods)) + (i - 0.5) * 0.38
                    errors = np.abs([mean - low, high - mean])
                    ax.bar(places, mean, 0.36, yerr=errors, color=COLOURS[i], label=state, error_kw={"linewidth": 0.8})
                ax.set_xticks(range(len(methods)), [label(m) for m in methods], rotation=30, ha="right")
                ax.set_title(f"{network}, {SHOWN[measure]}")
                ax.axhline(0, color="k", linewidth=0.6)
            line[0].set_ylabel("similarity")
        axes[0][0].legend(loc="upper right", ncols=2, fontsize=7)


def _grid(own: Table, file: Path, network: str) -> None:
    rows = own.where(order="pictures")
    methods, states = rows.distinct("method"), rows.where(method=rows.distinct("method")[0]).states()
    size = (1.15 * len(states) + 1.6, 1.15 * len(methods) + 0.6)
    with figure(file, rows=len(methods), columns=len(states), size=size) as (whole, axes):
        for line, method in zip(axes, methods, strict=True):
            for ax, state in zip(line, states, strict=True):
                flat = np.array(rows.where(method=method, state=state).rows["picture"].to_pylist()[0])
                picture = flat.reshape(int(len(flat) ** 0.5), -1)
                if state == "image":
                    ax.imshow(picture, cmap="gray")
                else:
                    top = np.quantile(np.abs(flat), 0.99) or 1.0
                    ax.imshow(picture / top, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
                ax.set_xticks([])
                ax.set_yticks([])
                ax.spines[:].set_visible(False)
            line[0].set_ylabel(label(method), rotation=0, ha="right", va="center")
        for ax, state in zip(axes[0], states, strict=True):
            ax.set_title(state, loc="center", fontsize=8)
        whole.suptitle(
            f"{network}: layers drawn again from the output down (purple for the class, orange against it)", fontsize=9
        )


def _summary(table: Table, networks: Sequence[str]) -> list[str]:
    lines = ["# Sanity checks: randomised weights and permuted labels", ""]
    for network in networks:
        own = table.where(network=network)
        lines += [f"## {network}", "", f"![curves](cascade_{network}.png)", "", *_beside_published(own, network)]
        lines += ["", *_corrected(own), "", *_informational(own), ""]
    lines += ["## Permuted labels", "", "![bars](permuted_labels.png)", "", *_permuted(table.where(order="permuted"))]
    return lines


def _beside_published(own: Table, network: str) -> list[str]:
    """The paper's protocol, ours / theirs after each step."""
    rows = own.where(order="paper")
    states = rows.states()
    lines = ["The paper's protocol: ten images, one redraw, the class that each network predicts. Ours / published."]
    for measure, name, theirs in (
        ("paper_abs", "abs", published.CASCADE_ABS), ("paper_signed", "signed", published.CASCADE_SIGNED),
    ):  # fmt: skip
        lines += ["", *_head([f"Spearman, {name}", *states])]
        for method in rows.distinct("method"):
            known = theirs.get(network, {}).get(method, ())
            cells = [f"{rows.where(method=method, state=s).mean(measure)[0]:.2f}" for s in states]
            pairs = [f"{c} / {k:.2f}" for c, k in zip(cells, known, strict=False) if k is not None]
            lines.append(_row([label(method), *(pairs or cells)]))
    return lines


def _corrected(own: Table) -> list[str]:
    """A fixed class, several redraws; per step, and what it would be at least and at most."""
    lines: list[str] = []
    for order in ("top_down", "bottom_up", "independent"):
        rows = own.where(order=order)
        states = rows.states()
        lines += [f"Corrected, {order.replace('_', ' ')}: signed rank correlation, fixed class (95 % interval).", ""]
        lines += _head(["", *states, "mean", "abs, last step", "SSIM, last step", "HOG, last step"])
        for method in rows.distinct("method"):
            one = rows.where(method=method)
            found = [_with_limits(one.where(state=s).mean("spearman")) for s in states]
            last = [f"{one.where(state=states[-1]).mean(m)[0]:.2f}" for m in ("abs_spearman", "ssim", "hog")]
            lines.append(_row([label(method), *found, f"{one.rows['spearman'].to_numpy().mean():.2f}", *last]))
        lines.append("")
    rows = own.where(order="references")
    lines += ["References: a second call, the same task learned again (ceiling), shuffled pixels (floor).", ""]
    states = ["repeated", "retrained", "shuffled"]
    lines += _head(["", *(f"{s}, {m}" for s in states for m in ("signed", "abs", "SSIM", "HOG"))])
    for method in rows.distinct("method"):
        found = [
            f"{rows.where(method=method, state=s).mean(m)[0]:.2f}"
            for s in states for m in ("spearman", "abs_spearman", "ssim", "hog")
        ]  # fmt: skip
        lines.append(_row([label(method), *found]))
    return lines


def _informational(own: Table) -> list[str]:
    names = [n for n in ("efficient_mprt", "random_logit", "cosine_convergence") if len(own.where(order=n).rows)]
    if not names:
        return []
    lines = ["Informational metrics, mean over images (none is gated).", "", *_head(["", *names])]
    for method in own.where(order=names[0]).distinct("method"):
        found = [own.where(order=n, method=method).rows["score"].drop_null().to_numpy() for n in names]
        lines.append(_row([label(method), *(f"{v.mean():.3f}" if len(v) else "" for v in found)]))
    return lines


def _permuted(rows: Table) -> list[str]:
    lines = _head(["", "", "abs / published", "signed / published", "same task, abs", "same task, signed"])
    for network in rows.distinct("network"):
        for method in rows.where(network=network).distinct("method"):
            one = rows.where(network=network, method=method)
            known = published.PERMUTED.get(network, {}).get(method)
            cells = []
            for i, measure in enumerate(("paper_abs", "spearman")):
                value = f"{one.where(state='permuted labels').mean(measure)[0]:.2f}"
                cells.append(f"{value} / {known[i]:.2f}" if known else value)
            cells += [f"{one.where(state='same task').mean(m)[0]:.2f}" for m in ("paper_abs", "spearman")]
            lines.append(_row([network, label(method), *cells]))
    return lines


def _with_limits(found: tuple[float, float, float]) -> str:
    mean, low, high = found
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _head(names: Iterable[str]) -> list[str]:
    cells = list(names)
    return [_row(cells), _row(["---"] * len(cells))]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
