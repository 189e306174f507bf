"""Does the map depend on what the model learned, or only on the images?"""

from __future__ import annotations

import torch
from torch import nn

from saliency_checks import maps
from saliency_checks.explain import model_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.subject import Subject, Twins


def twins_of(subject: Subject) -> Twins:
    assert subject.twins is not None
    if "twins" not in subject.cache:
        subject.cache["twins"] = subject.twins()
    twins: Twins = subject.cache["twins"]
    return twins


@metric(
    bound=">= 0.10",
    needs={"twins"},
    n=96,
    extra=lambda draw: 4,  # two twins of the task, two of permuted labels
    reference="Adebayo et al. 2018, section 3.3 (data randomisation), against same-task twins as the ceiling",
    meaning="a model that learned permuted labels is explained as one that learned the true ones",
    if_fails=(
        "is the explainer bound to one model?",
        "does the map follow a hash of the weights or noise, rather than what they compute?",
        "does the input show through (absolute input-multiplied maps do)?",
    ),
)
def label_permutation(method: Method, subject: Subject, draw: Draw) -> Scores:
    """How much more two twins of one task agree than true-label and permuted-label twins; worst permuted twin."""
    twins = twins_of(subject)
    n = min(draw.n, len(twins.inputs))
    present = (twins.inputs[:n] - subject.absent_value).abs().amax(1) > 1e-6

    def explained(model: nn.Module, stream: str) -> torch.Tensor:
        return model_maps(
            method, subject, model, twins.inputs, twins.targets, 0, n, seed=draw.seed, stream=f"twin {stream}"
        )

    reference, *same = [explained(model, f"same {i}") for i, model in enumerate(twins.same)]
    ceiling = torch.stack([maps.similarity(reference, other, present) for other in same]).mean(0)
    permuted = [
        maps.similarity(reference, explained(model, f"permuted {i}"), present) for i, model in enumerate(twins.permuted)
    ]
    return Scores(
        values=torch.stack([ceiling - rho for rho in permuted]).double().cpu().numpy()[:, None, :],
        groups=tuple(f"permuted twin {i}" for i in range(len(permuted))),
        degenerate=float(maps.degenerate(reference).double().mean()),
        details={"same": float(ceiling.mean()), "permuted": [float(rho.mean()) for rho in permuted]},
    )
