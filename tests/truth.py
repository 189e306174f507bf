"""What is expected of whom: one table, measured on subjects and images that played no part in choosing any setting.

python tests/truth.py [--split held_out|development] [--n N]      prints the measured table
"""

from __future__ import annotations

import argparse
from functools import cache

import torch

from saliency_checks import fixtures, registry
from saliency_checks.fixtures.splits import DEVELOPMENT, HELD_OUT, Split
from saliency_checks.graft import graft
from saliency_checks.loading import build_subject
from saliency_checks.method import Method, as_method
from saliency_checks.methods.oracle import truth_oracle
from saliency_checks.result import FAIL, INCONCLUSIVE, PASS, Result
from saliency_checks.run import run
from saliency_checks.subject import Subject

# Where each check is judged. Recovery and its kin must hold in both hue roles.
COLUMNS = {
    "recovery": ("pixel_recovery", ("planted_pixel_a", "planted_pixel_b")),
    "mlp": ("pixel_recovery", ("planted_pixel_mlp",)),
    "add": ("additive_importance", ("planted_pixel_a", "planted_pixel_b")),
    "sub": ("subtractive_importance", ("planted_pixel_a", "planted_pixel_b")),
    "deletion": ("planted_deletion", ("planted_pixel_a", "planted_pixel_b")),
    "contrast": ("class_contrast", ("planted_pixel_a", "planted_pixel_b")),
    "sign": ("sign", ("planted_pixel_a", "planted_pixel_b")),
    "cascade": ("cascading_randomization", ("fashion_cnn",)),
    "layers": ("independent_randomization", ("fashion_cnn",)),
    "labels": ("label_permutation", ("fashion_cnn",)),
    "labels_mlp": ("label_permutation", ("fashion_mlp",)),
    "natural": ("deletion_insertion", ("fashion_cnn_masked",)),
    "complexity": ("complexity", ("fashion_cnn",)),
    "graft": ("pixel_recovery", ("graft:fashion_cnn",)),
    "acuity": ("acuity", ("graft:fashion_cnn",)),
}
SPLITS: dict[str, Split] = {"held_out": HELD_OUT, "development": DEVELOPMENT}
MEANS = {
    "P": {PASS},
    "F": {FAIL},
    "o": {FAIL, INCONCLUSIVE},
    "i": {PASS, INCONCLUSIVE},
    "*": {PASS, FAIL, INCONCLUSIVE},
}


@cache
def subject(name: str, split: str) -> Subject:
    if name.startswith(registry.GRAFT):
        return build_subject(graft(subject(name.removeprefix(registry.GRAFT), split)))
    return build_subject(fixtures.build(name, split=SPLITS[split]))


def method(name: str, judged: Subject) -> Method:
    return truth_oracle(judged) if name == "oracle" else as_method(name)


def verdict(column: str, name: str, split: str = "held_out", n: int | None = None) -> Result | None:
    """The worst result over the column's subjects; None where the check does not apply."""
    check, subjects = COLUMNS[column]
    results = []
    for subject_name in subjects:
        judged = subject(subject_name, split)
        chosen = method(name, judged)
        if chosen.needs - judged.offers or registry.get("metrics", check).applies(chosen):
            return None
        results.append(run(check, chosen, judged, n=n))
    severity = (PASS, INCONCLUSIVE, FAIL)
    return max(results, key=lambda r: severity.index(r.verdict) if r.verdict in severity else len(severity))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="held_out", choices=list(SPLITS))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS))
    parser.add_argument("--n", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    everybody = registry.names("methods")
    everybody.sort(key=lambda name: (registry.get("methods", name).control, name))
    print(f"{'':22}" + "".join(f"{column:>14}" for column in args.columns))
    for name in args.methods or ["oracle", *everybody]:
        cells = []
        for column in args.columns:
            if name == "oracle" and COLUMNS[column][0] not in (
                "pixel_recovery",
                "additive_importance",
                "subtractive_importance",
                "planted_deletion",
                "class_contrast",
                "sign",
                "acuity",
            ):
                cells.append("")
                continue
            result = verdict(column, name, args.split, args.n)
            if result is None or result.score is None or result.low is None or result.high is None:
                cells.append("-" if result is None else result.verdict)
                if result is not None:
                    print(result.message)
            else:
                half = (result.high - result.low) / 2
                cells.append(f"{result.verdict[0].upper()} {result.score:.2f}±{half:.2f}")
        print(f"{name:22}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
