"""Draws images/CLASS/NUMBER.png and trains a network on them: in your project both exist already."""

import random
from pathlib import Path

import torch
from network import SIDE, network, read_images
from PIL import Image, ImageDraw
from torch.nn import functional as F

HERE = Path(__file__).parent
EACH = 100  # images of a class
SHAPES = {
    "circle": lambda draw, box, colour: draw.ellipse(box, fill=colour),
    "cross": lambda draw, box, colour: [
        draw.line(box, fill=colour, width=3),
        draw.line((box[0], box[3], box[2], box[1]), fill=colour, width=3),
    ],
    "square": lambda draw, box, colour: draw.rectangle(box, fill=colour),
}


def draw_images(folder: Path) -> None:
    """One bright shape each, anywhere, on noise."""
    dice = random.Random(0)
    for name, shape in SHAPES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(EACH):
            noise = Image.frombytes("RGB", (SIDE, SIDE), dice.randbytes(3 * SIDE * SIDE))
            image = noise.point(lambda value: value // 3)
            size, (left, top) = dice.randint(9, 12), (dice.randint(1, SIDE - 14), dice.randint(1, SIDE - 14))
            colour = tuple(dice.randint(150, 255) for _ in range(3))
            shape(ImageDraw.Draw(image), (left, top, left + size, top + size), colour)
            image.save(folder / name / f"{i:03}.png")


def train(images: torch.Tensor, labels: torch.Tensor) -> torch.nn.Module:
    torch.manual_seed(0)
    model = network(len(SHAPES))
    steps = torch.optim.AdamW(model.parameters(), lr=0.002)
    for _ in range(14):
        for rows in torch.randperm(len(images)).split(32):
            steps.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            steps.step()
    return model.eval()


if __name__ == "__main__":
    draw_images(HERE / "images")
    images, labels = read_images(HERE / "images")
    model = train(images, labels)
    print(f"{len(images)} images, {float((model(images).argmax(1) == labels).float().mean()):.1%} right")
    torch.save(model.state_dict(), HERE / "model.pt")
