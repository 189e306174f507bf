"""A method, a subject and a check; pyproject.toml says under which names they are found."""

import torch
from torch import nn

import saliency_checks as sc
from saliency_checks.explain import subject_maps
from saliency_checks.maps import strict_order
from saliency_checks.metric import Scores, own_images


@sc.method(needs={"gradient"}, signed=True, profiles={"thorough"})
def positive_contributions(model, inputs, targets):
    """Input times gradient, without what speaks against the class."""
    leaf = inputs.detach().requires_grad_()
    score = model(leaf).gather(1, targets[:, None]).sum()
    return (inputs * torch.autograd.grad(score, leaf)[0]).relu()


class Stripes(nn.Module):
    """Tells bright rows (class 0) from bright columns (class 1), by its weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = nn.Conv2d(1, 2, 5, padding=2, bias=False)
        with torch.no_grad():
            self.lines.weight.fill_(-0.05)
            self.lines.weight[0, 0, 2] = self.lines.weight[1, 0, :, 2] = 0.2

    def forward(self, x):
        return self.lines(x).relu().pow(2).mean((2, 3))


@sc.subject(offers={"gradient", "conv", "mask"}, profiles={"thorough"}, graft=False)
def stripes():
    """Noise with a bright row or column, which decides the class, and a diagonal just as bright, which does not."""
    dice = torch.Generator().manual_seed(0)
    n, side = 128, 16
    targets = torch.arange(n) % 2
    truth = torch.zeros(n, side, side, dtype=torch.bool)
    truth[torch.arange(n), torch.randint(2, side - 2, (n,), generator=dice)] = True
    truth[targets == 1] = truth[targets == 1].transpose(1, 2).clone()
    diagonal = torch.eye(side, dtype=torch.bool).expand(n, side, side)
    inputs = 0.3 * torch.rand(n, 1, side, side, generator=dice)
    inputs[:, 0][truth | diagonal] = 1.0
    return sc.Subject(Stripes().eval(), inputs, targets, truth=truth, randomizable=False, natural=False)


@sc.metric(
    bound=">= 0.9",  # one random pixel is as good as another: 0.5
    binary=True,
    shows=own_images,
    meaning="the pixel that the map ranks first matters less to the class than one drawn by lot",
    if_fails=("is the map of another image, or turned?", "is the sign lost where it matters?"),
)
def top_pixel(method, subject, draw):
    """Share of images whose logit falls further without the map's first pixel than without a random one."""
    n = min(draw.n, len(subject))
    inputs, targets = subject.inputs[:n], subject.targets[:n]
    dice = torch.Generator().manual_seed(draw.seed)
    first = strict_order(subject_maps(method, subject, 0, n, seed=draw.seed).flatten(1), dice)[:, 0].cpu()
    other = torch.randint(inputs[0, 0].numel(), (n,), generator=dice)
    fall = [_without(subject, inputs, targets, pixels) for pixels in (first, other)]
    ahead = (fall[0] < fall[1]).double() + (fall[0] == fall[1]).double() * torch.randint(2, (n,), generator=dice)
    return Scores(values=ahead.numpy()[None, None])


def _without(subject, inputs, targets, pixels):
    """The logit of each image's class when one pixel holds what means "absent"."""
    changed = inputs.clone()
    rows, columns = pixels // inputs.shape[-1], pixels % inputs.shape[-1]
    changed[torch.arange(len(inputs)), :, rows, columns] = subject.absent_value[0, :, 0, 0]
    with torch.no_grad():
        return subject.model(changed).gather(1, targets[:, None])[:, 0].cpu()
