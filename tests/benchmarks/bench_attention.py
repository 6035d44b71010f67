"""Attention for training on a CPU: forward and backward, torch's fused operator over explicit attention.

python tests/benchmarks/bench_attention.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hypclip.towers.attention import explicit_attention

ROUNDS = 9
SHAPES = {"ViT-S/16": (32, 12, 197, 32), "ViT-B/32": (32, 12, 50, 64), "captions": (64, 8, 24, 64)}


def main() -> None:
    """Print the table."""
    torch.set_num_threads(2)
    for dtype in (torch.bfloat16, torch.float32):
        for name, shape in SHAPES.items():
            inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
            gradient = torch.randn(shape, dtype=dtype)
            ratios, ours = [], []
            for number in range(ROUNDS + 1):
                fused = seconds(lambda i=inputs: scaled_dot_product_attention(*i), gradient)
                with explicit_attention():
                    written = seconds(lambda i=inputs: scaled_dot_product_attention(*i), gradient)
                if number:
                    ratios.append(fused / written)
                    ours.append(written)
            what = f"{name} {tuple(shape)}, {str(dtype).removeprefix('torch.')}"
            print(f"{what:<48} {1e3 * median(ours):6.1f} ms; fused over explicit {median(ratios):.2f} x")


def seconds(attend: Callable[[], Tensor], gradient: Tensor) -> float:
    """Return how long forward and backward take."""
    start = time.perf_counter()
    torch.autograd.backward(attend(), gradient)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
