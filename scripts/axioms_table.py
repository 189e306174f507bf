"""Which axioms every built-in method was measured to fulfil: writes docs/axioms.md.

python scripts/axioms_table.py [METHOD...]     # ten minutes for all
"""

from __future__ import annotations

import sys
from pathlib import Path

from saliency_checks import registry
from saliency_checks.axioms.laws import LAWS
from saliency_checks.method import CLAIMS, Method
from saliency_checks.metric import Draw
from saliency_checks.metrics.axioms import measured
from saliency_checks.subject import Unqualified

NETWORKS = 32
HEAD = f"""# Axioms

Each method on up to {NETWORKS} small random networks for each axiom (`saliency-checks run METHOD -k axioms`).
**yes**: claimed, and no network was found that violates it. yes: not claimed, and none was found. no: violated; the
check prints the smallest network and image found, as Python to paste. A claim that is violated fails the check.

"""


def cell(axiom: str, method: Method, holds: bool) -> str:
    if axiom in method.claims:
        return "**yes**" if holds else "**NO**"
    return "yes" if holds else "no"


def row(method: Method) -> str:
    try:
        found, _ = measured(method, Draw(n=NETWORKS))
    except Unqualified:
        return f"| {method.name} | explains none of these networks |" + " |" * (len(LAWS) - 1)
    return f"| {method.name} | " + " | ".join(cell(axiom, method, found[axiom] is None) for axiom in LAWS) + " |"


def main() -> None:
    names = sys.argv[1:] or [name for name in registry.names("methods") if not registry.get("methods", name).control]
    lines = [
        "| method | " + " | ".join(axiom.replace("_", " ") for axiom in LAWS) + " |",
        "|---" * (len(LAWS) + 1) + "|",
    ]
    for name in names:
        lines.append(row(registry.get("methods", name)))
        print(lines[-1], flush=True)
    meanings = "\n".join(f"- {axiom.replace('_', ' ')}: {CLAIMS[axiom]}" for axiom in LAWS)
    if not sys.argv[1:]:
        Path("docs/axioms.md").write_text(HEAD + "\n".join(lines) + "\n\n" + meanings + "\n")


if __name__ == "__main__":
    main()
