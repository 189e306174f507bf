"""What the benchmark's rows say, as tables, figures and a page: from the store alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saliency_checks.explain import derive
from saliency_checks.studies import benchmark_figures, statistics
from saliency_checks.studies.store import Part, Store

if TYPE_CHECKING:
    from jaxtyping import Float

    Numbers = NDArray[np.float64]

RANDOM = "random"
SHOWN = 50  # images that are left out
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """All scores of one metric on one subject.

    Attributes:
        metric: its name, with the preset.
        sign: 1 where higher is better, -1 where lower is.
        methods: by name; the random map is not among them.
        images: their numbers.
        values: of each method and image; NaN where there is none.
        random: of the random map.
        repeats: the methods that were measured again, and their scores (repeats, images).
    """

    subject: str
    metric: str
    sign: int
    methods: list[str]
    images: NDArray[np.int64]
    values: Float[Numbers, "m n"]
    random: Float[Numbers, " n"]
    repeats: dict[str, Float[Numbers, "r n"]]

    @property
    def signed(self) -> Float[Numbers, "m n"]:
        """Higher is better."""
        return self.sign * self.values

    def at(self, images: NDArray[np.int64]) -> Float[Numbers, "m k"]:
        """``signed`` of these images."""
        return self.signed[:, np.searchsorted(self.images, images)]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--correction", choices=statistics.CORRECTIONS, default="holm", help="over methods of a metric")
    parser.add_argument("--alpha", type=float, default=0.01, metavar="P", help="of the test against random; .01")


def report(options: argparse.Namespace, store: Store) -> None:
    """``scores.parquet``, a CSV per question, figures and ``summary.md``."""
    parts = list(store.made())
    store.save("scores.parquet", store.table(parts))
    page = ["# Benchmark", ""]
    tables: dict[str, Rows] = {}
    for subject, found in _by_subject(parts).items():
        answers = {
            "superiority": superiority(found, options.alpha, options.correction),
            "agreement": agreement(found),
            "correlation": correlation(found),
            "pairs": pairs(found, options.alpha),
            "noise": noise(found),
            "convergence": convergence(found),
        }
        for name, rows in answers.items():
            tables.setdefault(name, []).extend({"subject": subject, **row} for row in rows)
        benchmark_figures.draw(store.out, subject, found, answers)
        page += _page(subject, found, answers, options)
    for name, rows in tables.items():
        if rows:
            store.save(f"{name}.csv", {column: [row[column] for row in rows] for column in rows[0]})
    page += _missing(parts)
    store.write("summary.md", "\n".join(page) + "\n")


def superiority(found: list[Scored], alpha: float, correction: str) -> Rows:
    """Of each method over the random map, with the one-sided test, corrected over the methods of a metric."""
    rows: Rows = []
    for scored in found:
        p = np.array([statistics.signed_rank(values, scored.random, scored.sign) for values in scored.values])
        adjusted = statistics.corrected(p, correction)
        for method, values, raw, fair in zip(scored.methods, scored.values, p, adjusted, strict=True):
            share = statistics.superiority(values, scored.random, scored.sign)
            rows.append({
                "metric": scored.metric, "method": method, "superiority": share, "p": float(raw),
                "p_corrected": float(fair), "beats_random": bool(fair <= alpha and share > 0.5),
                "images": int(np.isfinite(values - scored.random).sum()),
            })  # fmt: skip
    return rows


def agreement(found: list[Scored]) -> Rows:
    """Do the images rank the methods alike?"""
    return [{"metric": s.metric, "alpha": statistics.agreement(s.values), "methods": len(s.methods)} for s in found]


def correlation(found: list[Scored]) -> Rows:
    """Of every two metrics over the images that both scored, mean over the methods that both scored."""
    rows: Rows = []
    for one, other in combinations(found, 2):
        images = np.intersect1d(one.images, other.images)
        both = [method for method in one.methods if method in other.methods]
        a, b = (s.at(images)[[s.methods.index(method) for method in both]] for s in (one, other))
        rows.append({"metric": one.metric, "other": other.metric, "spearman": statistics.rank_correlation(a, b)})
    return rows


def pairs(found: list[Scored], alpha: float) -> Rows:
    """Superiority of every method over every other, with the two-sided test."""
    rows: Rows = []
    for scored in found:
        of = dict(zip(scored.methods, scored.values, strict=True))
        p = {
            pair: statistics.signed_rank(of[pair[0]], of[pair[1]], alternative="two-sided")
            for pair in combinations(of, 2)
        }
        for one, other in permutations(of, 2):
            chance = p.get((one, other), p.get((other, one), 1.0))
            share = statistics.superiority(of[one], of[other], scored.sign)
            rows.append({
                "metric": scored.metric, "method": one, "other": other, "superiority": share, "p": chance,
                "differs": bool(chance < alpha),
            })  # fmt: skip
    return rows


def noise(found: list[Scored]) -> Rows:
    """How much of a score is the luck of its draws, where it was repeated."""
    rows: Rows = []
    for scored in found:
        for method, repeated in scored.repeats.items():
            ratios = statistics.signal_to_noise(repeated)
            known = ratios[~np.isnan(ratios)]
            low, middle, high = np.quantile(known, (0.25, 0.5, 0.75)) if len(known) else [float("nan")] * 3
            rows.append({
                "metric": scored.metric, "method": method, "repeats": len(repeated), "signal_to_noise": float(middle),
                "lower_quartile": float(low), "upper_quartile": float(high),
                "noise_share": statistics.noise_share(repeated),
            })  # fmt: skip
    return rows


def convergence(found: list[Scored]) -> Rows:
    """How many images rank the methods as all do."""
    rows: Rows = []
    for scored in found:
        n = int(np.isfinite(scored.values).all(0).sum())
        if len(scored.methods) < 3 or n < 4:
            continue
        sizes = sorted({*range(2, n, max(1, n // 12)), n})
        rng = np.random.default_rng(derive("convergence", scored.subject, scored.metric))
        drawn = statistics.convergence(scored.values, sizes, rng)
        for size, column in zip(sizes, drawn.T, strict=True):
            known = column[np.isfinite(column)]
            if len(known):
                low, middle, high = (float(q) for q in np.quantile(known, (0.05, 0.5, 0.95)))
                rows.append({"metric": scored.metric, "images": size, "spearman": middle, "low": low, "high": high})
    return rows


def _by_subject(made: list[Part]) -> dict[str, list[Scored]]:
    """The scores by subject and metric, with methods and images in one order."""
    grouped: dict[tuple[str, str], list[Any]] = {}
    for part in made:
        if len(part.table):
            columns = part.columns
            metric = f"{columns['metric']}@{columns['preset']}".rstrip("@")
            grouped.setdefault((str(columns["subject"]), metric), []).append(part)
    found: dict[str, list[Scored]] = {}
    for (subject, metric), parts in sorted(grouped.items()):
        if (scored := _scored(subject, metric, parts)) is not None:
            found.setdefault(subject, []).append(scored)
    return found


def _scored(subject: str, metric: str, parts: list[Any]) -> Scored | None:
    """None where the random map was not measured: nothing to compare with."""
    images = np.unique(np.concatenate([part.table["image"].to_numpy() for part in parts]))
    rows: dict[str, dict[int, Any]] = {}
    for part in parts:
        of = rows.setdefault(str(part.columns["method"]), {})
        values = of.setdefault(int(part.columns["repeat"]), np.full(len(images), np.nan))
        values[np.searchsorted(images, part.table["image"].to_numpy())] = part.table["score"].to_numpy()
    first = {method: of[0] for method, of in rows.items() if 0 in of}
    if RANDOM not in first:
        return None
    methods = sorted(method for method in first if method != RANDOM)
    return Scored(
        subject=subject, metric=metric, sign=1 if parts[0].recipe["better"] == "higher" else -1, methods=methods,
        images=images, random=first[RANDOM],
        values=np.array([first[method] for method in methods]).reshape(len(methods), len(images)),
        repeats={method: np.array([of[r] for r in sorted(of)]) for method, of in sorted(rows.items()) if len(of) > 1},
    )  # fmt: skip


def _page(subject: str, found: list[Scored], answers: dict[str, Rows], options: argparse.Namespace) -> list[str]:
    methods = sorted({method for scored in found for method in scored.methods})
    cells = {(row["metric"], row["method"]): row for row in answers["superiority"]}
    alpha = {row["metric"]: row["alpha"] for row in answers["agreement"]}

    def cell(metric: str, method: str) -> str:
        row = cells.get((metric, method))
        return "" if row is None else f"{100 * row['superiority']:.0f}" if row["beats_random"] else "·"

    lines = [
        f"## {subject}", "",
        f"Probability of superiority over a random map in percent, where one-sided Wilcoxon tests with"
        f" {options.correction} correction over methods say so (p <= {options.alpha:g}); · where they do not."
        " Last column: Krippendorff's ordinal alpha between images.", "",
        *_table(
            ["metric", "images", *methods, "alpha"],
            ([s.metric, _count(s), *(cell(s.metric, m) for m in methods), f"{alpha[s.metric]:.2f}"] for s in found),
        ), "",
    ]  # fmt: skip
    near = sorted((r for r in answers["correlation"] if r["spearman"] == r["spearman"]), key=lambda r: -r["spearman"])
    if near:
        chosen = near if len(near) <= 6 else [*near[:3], *near[-3:]]
        lines += ["Metrics that agree most and least over images (Spearman, mean over methods):", ""]
        lines += _table(
            ["metric", "other", "Spearman"], ([r["metric"], r["other"], f"{r['spearman']:.2f}"] for r in chosen)
        )
        lines.append("")
    if answers["noise"]:
        lines += ["Signal to noise over repeated draws (squared mean over variance, median over images):", ""]
        lines += _table(
            ["metric", "method", "signal to noise", "noise, share of all variance"],
            (
                [r["metric"], r["method"], f"{r['signal_to_noise']:.2f}", f"{r['noise_share']:.0%}"]
                for r in answers["noise"]
            ),
        )
        lines.append("")
    return lines


def _count(scored: Scored) -> str:
    return str(int(np.isfinite(scored.random).sum()))


def _missing(made: list[Part]) -> list[str]:
    """What could not be measured, and why: whole parts, then single images."""
    parts: list[str] = []
    images: dict[str, list[str]] = {}
    for part in made:
        name = " ".join(filter(None, map(str, part.columns.values())))
        if part.reason:
            parts.append(f"- {name}{_rows_of(part)}: {part.reason}")
        if "skipped" in part.table.column_names:
            for row in part.table.select(["image", "skipped"]).to_pylist():
                if row["skipped"] is not None:
                    key = f"- {part.columns['subject']} image {row['image']}: {row['skipped']}"
                    images.setdefault(key, []).append(str(part.columns["method"]))
    skipped = [f"{line} ({', '.join(dict.fromkeys(methods))})" for line, methods in images.items()]
    if len(skipped) > SHOWN:
        skipped[SHOWN:] = [f"- and {len(skipped) - SHOWN} more images: those with `skipped` in `scores.parquet`"]
    return ["## Not measured", "", *parts, *skipped] if parts or skipped else []


def _rows_of(part: Part) -> str:
    return "" if part.rows is None else f" images {part.rows[0]} to {part.rows[1]}"


def _table(head: list[str], rows: Iterator[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
