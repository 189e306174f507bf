"""Does the map for a class explain that class better than the map for another one does?"""

from __future__ import annotations

from saliency_checks import maps
from saliency_checks.asking import classes, logits
from saliency_checks.explain import generator, model_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.planted_deletion import reading
from saliency_checks.perturbation import outputs
from saliency_checks.subject import Subject

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)  # of the pixels that are deleted


@metric(
    readings=True,
    reference="Zhang et al. 2024 (saliencysense), tables 1 to 3: most and least likely class; deletion",
    meaning="the map for the least likely class explains the most likely one as well as its own map does",
)
def class_advantage(method: Method, subject: Subject, draw: Draw) -> Scores:
    """How much more of the lead of the most over the least likely class goes by the former's map than by the latter's.

    In shares of the lead, mean over 1 to 20 % of the pixels deleted; who ignores the class scores exactly 0.
    """
    n = min(draw.n, len(subject))
    inputs, found = subject.inputs[:n], logits(subject)[:n]
    fill = subject.absent_value.to(inputs).expand_as(inputs)
    pair = [classes(subject, which) for which in ("most_likely", "least_likely")]
    counts = [max(1, round(share * inputs[0, 0].numel())) for share in SHARES]
    lead = (found.amax(1) - found.amin(1)).clamp(min=1e-12)
    left, constant = [], []
    for i, targets in enumerate(pair):
        attributions = model_maps(
            method, subject, subject.model, subject.inputs, targets, 0, n, seed=draw.seed, stream=f"extreme {i}"
        )
        ties = generator("ties", subject.name, draw.seed)  # the same for both: equal maps give equal orders
        order = maps.strict_order(reading(attributions, method).flatten(1), ties)
        after = outputs(subject.model, inputs, fill, order, counts)
        most, least = (after.gather(2, t[:n].view(-1, 1, 1).expand(-1, len(counts), 1))[..., 0] for t in pair)
        left.append((most - least).mean(1))
        constant.append(float(maps.degenerate(attributions).double().mean()))
    return Scores(values=((left[1] - left[0]) / lead).double().cpu().numpy()[None, None], degenerate=max(constant))
