"""What is to be explained: one's own model on one's own images. Called when first needed, once per process."""

from pathlib import Path

import torch
from network import network, read_images

import saliency_checks as sc

HERE = Path(__file__).parent


@sc.subject(offers={"gradient", "conv", "randomization", "natural"})
def shapes():
    images, labels = read_images(HERE / "images")
    model = network(classes=int(labels.max()) + 1)
    model.load_state_dict(torch.load(HERE / "model.pt", weights_only=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # the first are looked at first
    return sc.Subject(model.eval(), images[order], labels[order])
