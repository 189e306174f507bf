"""How small a cause can a method find? Recovery against the size of a grafted cause, as a table and a figure.

    python benchmarks/acuity.py --subjects fashion_cnn fashion_resnet18 --methods gradient guided_backprop --out DIR

A subject may also be ``photos:SIDE``: EfficientNet-Lite0 on twenty photographs of that size (``dev`` extra). Results
are added to ``DIR/acuity.json``, so that a long run can be made in parts; the figure shows all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from saliency_checks.graft import graft
from saliency_checks.loading import build_subject
from saliency_checks.method import as_method
from saliency_checks.metrics.acuity import EFFECTS, RECOVERY
from saliency_checks.run import run
from saliency_checks.subject import Subject

CHANCE = 1 / 8
# Okabe and Ito's colours, which the colour-blind can tell apart; with a marker each.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*"


def grafted(name: str) -> Subject:
    if not name.startswith("photos:"):
        return build_subject(graft(name))
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from pretrained import subject

    return build_subject(graft(subject(int(name.removeprefix("photos:")))))


def measured(name: str, methods: list[str], profile: str) -> dict[str, Any]:
    subject, rows = grafted(name), {}
    for method in methods:
        result = run("acuity", method, subject, profile=profile)
        print(f"{name:20}{method:26}{result.verdict:14}", end="")
        if result.score is None:
            print(result.message.splitlines()[0])
            continue
        recovery = result.details["recovery"]
        print(f"{result.score:g} [{result.low:g}, {result.high:g}]", recovery, f"{result.seconds:.0f} s", flush=True)
        rows[method] = {
            "verdict": result.verdict, "threshold": result.score, "low": result.low, "high": result.high,
            "n": result.n, "recovery": recovery, "control": as_method(method).control,
        }  # fmt: skip
    return rows


def draw(found: dict[str, dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    methods = sorted({method for rows in found.values() for method, row in rows.items() if not row["control"]})
    figure, axes = plt.subplots(1, len(found), figsize=(3.6 * len(found) + 1.6, 3.6), sharey=True, squeeze=False)
    for axis, (subject, rows) in zip(axes[0], found.items(), strict=True):
        for method, row in rows.items():
            by_effect = list(zip(*row["recovery"], strict=True))
            worst, best = [min(column) for column in by_effect], [max(column) for column in by_effect]
            if row["control"]:
                axis.fill_between(EFFECTS, worst, best, color="0.5", alpha=0.2, linewidth=0, label="controls")
                continue
            i = methods.index(method)
            colour, aside = COLOURS[i % len(COLOURS)], 1.025 ** (i - len(methods) / 2)  # or they hide one another
            effects = [effect * aside for effect in EFFECTS]
            axis.fill_between(effects, worst, best, color=colour, alpha=0.12, linewidth=0)
            axis.plot(effects, worst, color=colour, marker=MARKERS[i % len(MARKERS)], markersize=4, label=method)
        axis.axhline(RECOVERY, color="0.5", linewidth=0.8, linestyle="--")
        axis.axhline(CHANCE, color="0.5", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xticks=EFFECTS, xticklabels=[f"{effect:g}" for effect in EFFECTS], ylim=(0, 1.02))
        axis.minorticks_off()
        axis.set(title=subject, xlabel="size of the cause, in spreads of the logits")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("share of images in which it is found")
    axes[0][-1].text(EFFECTS[-1], CHANCE + 0.015, "chance", ha="right", color="0.4", fontsize=8)
    axes[0][-1].text(EFFECTS[0], RECOVERY + 0.015, "asked for", color="0.4", fontsize=8)
    named = {str(one.get_label()): one for axis in axes[0] for one in axis.get_legend_handles_labels()[0]}
    shown = [name for name in (*methods, "controls") if name in named]
    figure.legend(
        [named[name] for name in shown], shown, frameon=False,
        loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8,
    )  # fmt: skip
    figure.tight_layout()
    figure.savefig(file, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", default=["fashion_cnn"])
    parser.add_argument("--methods", nargs="+", default=["gradient", "guided_backprop", "random"])
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--out", type=Path, default=Path("build/acuity"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "acuity.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in options.subjects:
        found.setdefault(name, {}).update(measured(name, options.methods, options.profile))
        kept.write_text(json.dumps(found, indent=1))
    draw(found, options.out / "acuity.png")
    print(f"wrote {kept} and acuity.png beside it")


if __name__ == "__main__":
    main()
