"""Best and worst images of a verdict with their maps, small enough to travel in a report."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Metric, Scores, Shown
from saliency_checks.result import plain
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8
    from numpy.typing import NDArray
    from torch import Tensor

RANKS = ("worst", "best")
ARRAYS = "arrays"  # of an example: input, map and truth as they are; stays in the process, JSON has the pictures
SIDE = 96  # pixels; larger images are averaged down to it
STRONG = 0.99  # quantile of |map| that gets the full colour: a lone outlier leaves the rest visible
FOR, AGAINST = (178, 24, 43), (33, 102, 172)  # ends of ColorBrewer's RdBu, which the colour-blind can tell apart


def examples(
    metric: Metric, method: Method, subject: Subject, draw: Draw, scores: Scores, group: int, each: int
) -> list[dict[str, Any]]:
    """The ``each`` worst and best images of a group, the worst first: rank, index, score, two PNG in base64, arrays.

    Empty where the metric has no one map per image.
    """
    if not each or metric.shows is None:
        return []
    row = scores.values[group].mean(0)
    order = np.argsort(row if metric.better == "higher" else -row, kind="stable")
    shown = metric.shows(method, subject, draw, group)
    if len(shown.maps) != len(order):
        return []
    worst, best = order[:each], order[max(each, len(order) - each) :][::-1]
    return [
        {
            "rank": rank, "index": int(i), "score": plain(float(row[i])),
            "input": _encoded(picture(shown.inputs[i])), "map": _encoded(heat(shown.maps[i])),
            **({} if shown.truth is None else {"cause": _box(shown.truth[i])}),
            ARRAYS: _arrays(shown, i),
        }
        for rank, rows in zip(RANKS, (worst, best), strict=True)
        for i in rows
    ]  # fmt: skip


def _arrays(shown: Shown, i: int) -> dict[str, NDArray[Any]]:
    found = {"input": shown.inputs[i], "map": shown.maps[i], "truth": None if shown.truth is None else shown.truth[i]}
    return {name: tensor.detach().cpu().numpy() for name, tensor in found.items() if tensor is not None}


def picture(image: Float[Tensor, "c h w"]) -> UInt8[NDArray[Any], "h w 3"]:
    """An input as one sees it: its own range becomes black to white; other than three channels become their mean."""
    small = _small(image.detach().double())
    channels = small if len(small) == 3 else small.mean(0, keepdim=True)
    low, high = channels.amin(), channels.amax()
    scaled = (channels - low) / (high - low).clamp(min=1e-12)
    return _bytes(scaled.expand(3, -1, -1))


def heat(attributions: Float[Tensor, "h w"]) -> UInt8[NDArray[Any], "h w 3"]:
    """A map in red (for the class) and blue (against it) on white, which is zero."""
    small = _small(attributions.detach().double().unsqueeze(0))[0]
    top = small.abs().flatten().quantile(STRONG)
    top = top if float(top) > 0 else small.abs().amax().clamp(min=1e-300)
    strength = (small / top).clamp(-1, 1)
    ends = torch.tensor([FOR, AGAINST], dtype=torch.float64, device=small.device) / 255
    colour = torch.where((strength > 0).unsqueeze(0), ends[0].view(3, 1, 1), ends[1].view(3, 1, 1))
    return _bytes(1 - strength.abs() * (1 - colour))


def png(pixels: UInt8[NDArray[Any], "h w 3"]) -> bytes:
    """The bytes of a PNG file: 8 bits each of red, green and blue (ISO/IEC 15948)."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _small(channels: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    height, width = channels.shape[-2:]
    if max(height, width) <= SIDE:
        return channels
    scale = SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return F.adaptive_avg_pool2d(channels.unsqueeze(0), size)[0]


def _bytes(colours: Float[Tensor, "3 h w"]) -> UInt8[NDArray[Any], "h w 3"]:
    found: NDArray[Any] = (colours * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    return found


def _encoded(pixels: UInt8[NDArray[Any], "h w 3"]) -> str:
    return base64.b64encode(png(pixels)).decode()


def _box(mask: Bool[Tensor, "h w"]) -> list[float]:
    """Left, top, right, bottom of the mask, as shares of the image; empty where there is none."""
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    if not rows:
        return []
    height, width = mask.shape
    edges = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    return [round(edge, 4) for edge in edges]
