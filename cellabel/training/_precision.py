"""Which arithmetic is faster here."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import nn

BF16_MUST_GAIN = 1.15


def resolve_precision(precision: str) -> str:
    """Which of fp32 and bf16 is meant; "auto" is bf16 where the processor is measurably faster with it."""
    if precision != "auto":
        return precision
    return "bf16" if _bf16_is_faster() else "fp32"


@lru_cache(maxsize=1)
def _bf16_is_faster() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    with torch.random.fork_rng(devices=[]):
        layer = nn.Conv2d(32, 32, 3, padding=1)
        images = torch.rand(4, 32, 64, 64)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        times = []
        for _ in range(4):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                layer(images).float().sum().backward()
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times[1:])
    return seconds[torch.float32] > BF16_MUST_GAIN * seconds[torch.bfloat16]
