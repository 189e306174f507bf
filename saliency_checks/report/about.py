"""What each check measures and means, for readers of a report who have neither the code nor the console."""

from __future__ import annotations

from typing import Any

from saliency_checks.report import Report


def describe(report: Report) -> None:
    """Fill ``report.checks`` from the registered metrics; one that this process does not know is left out."""
    from saliency_checks import registry

    for name in sorted({row.result.check for row in report.rows.values()} - set(report.checks)):
        try:
            metric = registry.get("metrics", name)
        except LookupError:
            continue
        report.checks[name] = _about(metric)


def _about(metric: Any) -> dict[str, Any]:
    return {
        "summary": metric.summary,
        "meaning": metric.meaning,
        "if_fails": list(metric.if_fails),
        "reference": metric.reference,
        "better": metric.better,
        "quantile": metric.quantile,
        "bound": str(metric.bound) if metric.bound else "",
    }
