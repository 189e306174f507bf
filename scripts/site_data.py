"""What the documentation shows but does not measure when it is built: docs/data/cost.json and docs/images/checks/.

python scripts/site_data.py [cost] [pictures]      # two minutes
"""

from __future__ import annotations

import base64
import copy
import io
import json
import sys
from pathlib import Path

from PIL import Image

import saliency_checks as sc
from saliency_checks import registry
from saliency_checks.cost import cost
from saliency_checks.explain import explain
from saliency_checks.loading import build_subject
from saliency_checks.method import as_method
from saliency_checks.pictures import heat
from saliency_checks.randomization import cascading, independent

DATA, PICTURES = Path("docs/data/cost.json"), Path("docs/images/checks")
SIDE, GAP, IMAGES = 112, 8, 3  # pixels of a picture on the page
# Check -> where it is shown, a method that passes and one that fails, with the words for the failure.
PIXEL, CNN, MASKED = "planted_pixel_a", "fashion_cnn", "fashion_cnn_masked"
RECOVERS = "It shows the image, whatever the weights"
SHOWN = {
    "pixel_recovery": (PIXEL, "integrated_gradients", "edges", "Edges rank no site above its look-alikes"),
    "additive_importance": (PIXEL, "integrated_gradients", "edges", "The class is not in what an edge points at"),
    "subtractive_importance": (PIXEL, "integrated_gradients", "edges", "The class survives the loss of an edge"),
    "planted_deletion": (PIXEL, "integrated_gradients", "input_magnitude", "What is bright is not the cause"),
    "class_contrast": (PIXEL, "gradient", "center_blob", "A blob in the middle is the same for every class"),
    "sign": (PIXEL, "integrated_gradients", "random", "Noise has any sign at the cause"),
    "deletion_insertion": (MASKED, "integrated_gradients", "grad_cam", "A cell spreads over many pixels"),
    "complexity": (CNN, "integrated_gradients", "constant", "A uniform field ranks nothing"),
    "cascading_randomization": (CNN, "integrated_gradients", "guided_backprop", RECOVERS),
    "independent_randomization": (CNN, "integrated_gradients", "guided_backprop", RECOVERS),
}
# What the weights are drawn again of, where a check does so.
REDRAWN = {
    "cascading_randomization": (cascading, -1, "all layers"),
    "independent_randomization": (independent, 0, "the last layer"),
}


def measure_cost() -> None:
    found = {}
    for name in registry.names("methods"):
        spent = cost(registry.get("methods", name))
        found[name] = {"forward": spent.forward, "backward": spent.backward, "memory": round(spent.memory, 2)}
        print(name, found[name], flush=True)
    DATA.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f' "{name}": {json.dumps(spent)}' for name, spent in found.items())
    DATA.write_text(f"{{\n{lines}\n}}\n", "utf-8")


def draw_pictures() -> None:
    """Three images of each check: as they are, by a method that passes, by one that fails."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    captions = {}
    for check, (subject, sound, unsound, why) in SHOWN.items():
        shown = [sc.run(check, name, subject, profile="quick", images=64) for name in (sound, unsound)]
        by_index = [{example["index"]: example for example in result.examples} for result in shown]
        both = sorted(by_index[0].keys() & by_index[1].keys())[:IMAGES]
        rows = [[opened(by_index[0][i]["input"]) for i in both]]
        for name, found in zip((sound, unsound), by_index, strict=True):
            rows += [[opened(found[i]["map"]) for i in both], *redrawn(check, name, subject, both)]
        sheet(rows).save(PICTURES / f"{check}.png", optimize=True)
        again = (
            f", each with the trained weights and below with those of {REDRAWN[check][2]} drawn again"
            if check in REDRAWN
            else ""
        )
        told = [f"{result.method} ({result.score:.2f}, {result.verdict})" for result in shown]
        captions[check] = f"Images of {subject}, the maps of {told[0]} and of {told[1]}{again}. {why}."
        print(captions[check], flush=True)
    (PICTURES / "captions.json").write_text(json.dumps(captions, indent=1) + "\n", "utf-8")


def redrawn(check: str, method: str, subject: str, rows: list[int]) -> list[list[Image.Image]]:
    """The maps of some images when weights are drawn again; none where the check does not do so."""
    if check not in REDRAWN:
        return []
    states, which, _ = REDRAWN[check]
    built = build_subject(subject)
    _, model = [(name, copy.deepcopy(model)) for name, model in states(built.model, built.inputs[:64], 0)][which]
    maps = explain(as_method(method), model, built.inputs[rows], built.targets[rows], **built.supplies)
    return [[Image.fromarray(heat(one)) for one in maps]]


def opened(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png)))


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    step = SIDE + GAP
    page = Image.new("RGB", (step * len(rows[0]) - GAP, step * len(rows) - GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x * step, y * step))
    return page


def main() -> None:
    asked = sys.argv[1:] or ["cost", "pictures"]
    if "cost" in asked:
        measure_cost()
    if "pictures" in asked:
        draw_pictures()


if __name__ == "__main__":
    main()
