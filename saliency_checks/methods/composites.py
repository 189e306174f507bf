"""Functions that are made of others: they run in parts, each of which a rule may meet (see ``rules``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

QUOTIENTS = frozenset({"div", "divide", "true_divide", "truediv"})


class Levels(Protocol):
    """What a softmax needs of the rules that it runs under."""

    def level(self, values: Tensor) -> Tensor: ...


def _quotient(rules: Levels, above: Any, below: Any, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise ValueError("division that rounds has no slope, so no rule either")
    quotient: Tensor = above * below.reciprocal()
    return quotient


def _softmax(rules: Levels, x: Tensor, dim: int, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    powers = torch.exp(x - rules.level(x.detach().amax(dim, keepdim=True)))
    return powers * powers.sum(dim, keepdim=True).reciprocal()


def _log_softmax(rules: Levels, x: Tensor, dim: int, *_: Any, **__: Any) -> Tensor:
    low = x - rules.level(x.detach().amax(dim, keepdim=True))
    return low - low.exp().sum(dim, keepdim=True).log()


def _normalised(x: Tensor, dims: tuple[int, ...], eps: float, centred: bool = True) -> Tensor:
    spread = x - x.mean(dims, keepdim=True) if centred else x
    scaled: Tensor = spread * (spread.square().mean(dims, keepdim=True) + eps).rsqrt()
    return scaled


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


def _layer_norm(
    rules: Levels, x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return _affine(_normalised(x, tuple(range(-len(shape), 0)), eps), weight, bias)


def _rms_norm(
    rules: Levels, x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(_normalised(x, tuple(range(-len(shape), 0)), eps, centred=False), weight, None)


def _group_norm(
    rules: Levels, x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    normal = _normalised(x.unflatten(1, (groups, -1)), tuple(range(2, x.ndim + 1)), eps).flatten(1, 2)
    channels = (-1, *[1] * (x.ndim - 2))
    return _affine(normal, *(None if one is None else one.view(channels) for one in (weight, bias)))


def _attention(
    rules: Levels, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    if attn_mask is not None or is_causal or enable_gqa:
        raise ValueError("attention with a mask or with groups of queries has no rule here")
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return scores.softmax(-1) @ value


def _multi_head_attention(rules: Levels, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``F.multi_head_attention_forward`` of (tokens, n, features), without masks; images come first inside."""
    names = ("size", "heads", "weight", "bias", "bias_k", "bias_v", "zero", "dropout", "out_weight", "out_bias")
    given = dict(zip(names, args, strict=False))
    masks = [kwargs.get(name) for name in ("key_padding_mask", "attn_mask")]
    missing = [given["bias_k"], given["bias_v"], *masks]
    if given["zero"] or given["weight"] is None or query.ndim != 3 or any(one is not None for one in missing):
        raise ValueError("attention with masks, separate projections or added keys has no rule here")
    biases = (None,) * 3 if given["bias"] is None else given["bias"].chunk(3)
    q, k, v = (
        F.linear(x.transpose(0, 1), w, b).unflatten(-1, (given["heads"], -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), given["weight"].chunk(3), biases, strict=True)
    )
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    found = F.linear((weights @ v).transpose(1, 2).flatten(2), given["out_weight"], given["out_bias"]).transpose(0, 1)
    if not kwargs.get("need_weights", True):
        return found, None
    return found, weights.mean(1) if kwargs.get("average_attn_weights", True) else weights


COMPOSITES: dict[str, Callable[..., Any]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head_attention,
    **dict.fromkeys(QUOTIENTS, _quotient),
}
