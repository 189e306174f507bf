"""The whole text of a verdict: the number first, then what it means and what to do."""

from __future__ import annotations

from saliency_checks.metric import MOST_DEGENERATE, Metric, Scores
from saliency_checks.result import FAIL, INCONCLUSIVE, PASS, Result
from saliency_checks.verdict import Judgement

CONTROLS_SHOWN = 4


def explain_verdict(metric: Metric, result: Result, scores: Scores, judgement: Judgement, reading: str) -> str:
    assert result.score is not None
    assert result.low is not None
    assert result.high is not None
    group = scores.groups[judgement.group]
    remarks = [part for part in (f"worst: {group}" if group else "", reading) if part]
    note = str(scores.details.get("note", ""))
    if scores.degenerate > MOST_DEGENERATE:
        remarks.append(f"{scores.degenerate:.0%} of the maps are constant or all zero")
    head = f"{result.score:.2f} {_relation(result)} {result.bound or 'no bound'}"
    lines = [
        f"{head}  {metric.name}: {result.method} on {result.subject}",
        f"  score    {result.score:.2f} [{result.low:.2f}, {result.high:.2f}]  {metric.summary}"
        f" (n={result.n}, seed {result.seed})",
        *(f"           {remark}" for remark in remarks),
        f"  bound    {result.bound or 'none: reported, never failed'}  {result.bound_origin}",
    ]
    if result.controls:
        best = sorted(result.controls.items(), key=lambda item: item[1], reverse=metric.better == "higher")
        lines.append("  controls " + ", ".join(f"{name} {score:.2f}" for name, score in best[:CONTROLS_SHOWN]))
    if result.verdict == INCONCLUSIVE:
        lines.append(f"  open     {judgement.advice}")
    if result.verdict in (FAIL, INCONCLUSIVE):
        lines.append(f"  meaning  {metric.meaning}")
        lines += [f"  {'check' if i == 0 else '     '}    {i + 1}. {text}" for i, text in enumerate(metric.if_fails)]
    if note:
        lines += [f"  note     {line}" for line in note.splitlines()]
    if result.verdict in (FAIL, INCONCLUSIVE):
        lines.append(f"  again    saliency-checks run {result.method} --subject {result.subject} -k {metric.name}")
    if paste := scores.details.get("paste"):
        lines += ["", str(paste)]  # flush left, as it is to be pasted
    return "\n".join(lines)


def _relation(result: Result) -> str:
    return {PASS: "holds", FAIL: "breaks", INCONCLUSIVE: "is undecided against"}.get(result.verdict, "with")
