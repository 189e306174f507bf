"""Tables of the randomisation study, from what its store holds; its figures are drawn beside it."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from saliency_checks.studies import published, sanity_figures
from saliency_checks.studies.sanity_figures import label, layer, spread
from saliency_checks.studies.store import Store
from saliency_checks.studies.table import Table, head, mean_with_limits, row, with_limits

MEASURES = {"spearman": "signed", "abs_spearman": "abs", "cosine": "cosine", "ssim": "SSIM", "hog": "HOG"}
INFORMATIONAL = {
    "efficient_mprt": "eMPRT", "smooth_mprt@samples=8": "sMPRT", "random_logit": "random logit",
    "cosine_convergence": "cosine convergence",
}  # fmt: skip
MOST_COLUMNS = 8  # steps of a table


def write(store: Store) -> None:
    whole = store.table()
    table = Table(whole)
    store.save("values.parquet", whole.drop_columns([c for c in ("picture",) if c in whole.column_names]))
    networks = [n for n in table.distinct("network") if len(table.where(network=n, order="top_down").rows)]
    for network in networks:
        own = table.where(network=network)
        sanity_figures.curves(own, store.out / f"cascade_{network}.png", network)
        if len(own.where(order="independent").rows):
            sanity_figures.boxes(own, store.out / f"independent_{network}.png", network)
        sanity_figures.grid(own, store.out / f"maps_{network}.png", network)
    lines = ["# Sanity checks: randomised weights and permuted labels", ""]
    for network in networks:
        lines += _network(table.where(network=network), network)
    if len((permuted := table.where(order="permuted")).rows):
        sanity_figures.bars(permuted, store.out / "permuted_labels.png")
        lines += ["## Permuted labels", "", "![bars](permuted_labels.png)", "", *_permuted(permuted), ""]
    store.write("summary.md", "\n".join([*lines, *_missing(store)]) + "\n")


def _network(own: Table, network: str) -> list[str]:
    kinds = ("cascade", *(["independent"] if len(own.where(order="independent").rows) else []), "maps")
    figures = [f"![{kind}]({kind}_{network}.png)" for kind in kinds]
    lines = [f"## {network}", "", *figures, "", *_accuracy(own), ""]
    lines += [*_beside_published(own, network), "", *_corrected(own), *_alone(own, network)]
    return [*lines, *_references(own.where(order="references")), "", *_informational(own), ""]


def _accuracy(own: Table) -> list[str]:
    """A network that still knows the class after its top layers are drawn again was not randomised."""
    rows = own.where(order="accuracy")
    found = [f"{layer(s)} {rows.where(state=s).mean('score')[0]:.2f}" for s in spread(rows.states(), MOST_COLUMNS)]
    return ["Share of images whose class the network still sees, from the output down: " + ", ".join(found) + "."]


def _beside_published(own: Table, network: str) -> list[str]:
    """The paper's protocol, ours / theirs after each step."""
    rows = own.where(order="paper")
    states = spread(rows.states(), MOST_COLUMNS)
    known_as = network.removesuffix("_digits")
    beside = " Ours / published." if known_as in published.CASCADE_ABS else ""
    lines = [f"The paper's protocol: ten images, one redraw, the class that each network predicts.{beside}"]
    for measure, name, theirs in (
        ("paper_abs", "abs", published.CASCADE_ABS), ("paper_signed", "signed", published.CASCADE_SIGNED),
    ):  # fmt: skip
        lines += ["", *head([f"Spearman, {name}", *map(layer, states)])]
        for method in rows.distinct("method"):
            known = theirs.get(known_as, {}).get(method, ())
            cells = [f"{rows.where(method=method, state=s).mean(measure)[0]:.2f}" for s in states]
            pairs = [c if k is None else f"{c} / {k:.2f}" for c, k in zip_longest(cells, known[: len(cells)])]
            lines.append(row([label(method), *pairs]))
    return lines


def _corrected(own: Table) -> list[str]:
    """A fixed class, several redraws; per step, and what it would be at least and at most."""
    lines: list[str] = []
    for order in ("top_down", "bottom_up", "independent"):
        if not len((rows := own.where(order=order)).rows):
            continue
        states = rows.states()
        shown = spread(states, MOST_COLUMNS)
        some = "" if shown == states else f", {len(shown)} of {len(states)} steps"
        lines += [f"Corrected, {order.replace('_', ' ')}: signed rank correlation, fixed class (95 %){some}.", ""]
        lines += head(["", *map(layer, shown), "mean of all", *(f"{m}, last" for m in list(MEASURES.values())[1:])])
        for method in rows.distinct("method"):
            one = rows.where(method=method)
            found = [with_limits(one.where(state=s).mean("spearman")) for s in shown]
            every = np.mean([one.where(state=s).block("spearman") for s in states], axis=0)
            last = [f"{one.where(state=states[-1]).mean(m)[0]:.2f}" for m in list(MEASURES)[1:]]
            lines.append(row([label(method), *found, with_limits(mean_with_limits(every, within=(-1, 1))), *last]))
        lines.append("")
    return lines


def _alone(own: Table, network: str) -> list[str]:
    """Each layer alone drawn again, where the paper's box plots were read off."""
    rows, known = own.where(order="independent"), published.INDEPENDENT_ABS.get(network.removesuffix("_digits"), {})
    if not known or not len(rows.rows):
        return []
    lines = ["Each layer alone drawn again: median abs, ours (fixed class) / published.", ""]
    lines += head(["", *map(layer, rows.states())])
    for method in [m for m in known if m in rows.distinct("method")]:
        found = [rows.where(method=method, state=s).rows["paper_abs"].to_numpy() for s in rows.states()]
        pairs = zip(found, known[method], strict=True)
        lines.append(row([label(method), *(f"{np.median(ours):.2f} / {their:.2f}" for ours, their in pairs)]))
    return [*lines, ""]


def _references(rows: Table) -> list[str]:
    lines = ["References: a second call, the same task learned again (ceiling), shuffled pixels (floor).", ""]
    states = [s for s in ("repeated", "retrained", "shuffled") if s in rows.distinct("state")]
    lines += head(["", *(f"{s}, {m}" for s in states for m in MEASURES.values())])
    for method in rows.distinct("method"):
        found = [f"{rows.where(method=method, state=s).mean(m)[0]:.2f}" for s in states for m in MEASURES]
        lines.append(row([label(method), *found]))
    return lines


def _informational(own: Table) -> list[str]:
    names = [n for n in INFORMATIONAL if len(own.where(order=n).rows)]
    if not names:
        return []
    lines = ["Informational metrics, mean over images (none is gated).", ""]
    lines += head(["", *(INFORMATIONAL[name] for name in names)])
    for method in own.where(order=names[0]).distinct("method"):
        found = [own.where(order=n, method=method).rows["score"].drop_null().to_numpy() for n in names]
        lines.append(row([label(method), *(f"{v.mean():.3f}" if len(v) else "" for v in found)]))
    return lines


def _permuted(rows: Table) -> list[str]:
    lines = head(["", "", "abs / published", "signed / published", "same task, abs", "same task, signed"])
    for network in rows.distinct("network"):
        for method in rows.where(network=network).distinct("method"):
            one = rows.where(network=network, method=method)
            known = published.PERMUTED.get(network, {}).get(method)
            cells = []
            for i, measure in enumerate(("paper_abs", "spearman")):
                value = f"{one.where(state='permuted labels').mean(measure)[0]:.2f}"
                cells.append(f"{value} / {known[i]:.2f}" if known else value)
            cells += [f"{one.where(state='same task').mean(m)[0]:.2f}" for m in ("paper_abs", "spearman")]
            lines.append(row([network, label(method), *cells]))
    return lines


def _missing(store: Store) -> list[str]:
    """What could not be measured, and why."""
    reasons = {(p.columns["network"], p.columns["method"], p.reason): None for p in store.made() if p.reason}
    if not reasons:
        return []
    return ["## Not measured", "", *(f"- {label(str(m))} on {n}: {why}" for n, m, why in reasons)]
