"""Packed texts: token ids joined in one row, with a mask that keeps texts apart, so that there is no padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hypclip.towers.tokens import TokenRows

_MOST = 128
"""Most tokens of a pass; with more, attention over all pairs costs what padding would."""


class PackedTower(nn.Module):
    """A text tower for packed texts, in which a token attends to the tokens before it in its own text.

    Args:
        tower: one that `can_be_packed`, whose weights are shared.
    """

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, packed: Int[Tensor, "2 n"]) -> Float[Tensor, "n d"]:
        """Return at each token, as `pack` returns them, the features of a text that ends there."""
        tower: Any = self.tower
        ids, positions = packed.unbind(0)
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(ids).to(dtype) + tower.positional_embedding[positions].to(dtype)
        text, index = (positions == 0).cumsum(0), torch.arange(packed.shape[1], device=packed.device)
        hidden = (text[:, None] != text) | (index[:, None] < index)
        mask = torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, float("-inf"))
        x = tower.ln_final(tower.transformer(x[None], attn_mask=mask)[0])
        projection = tower.text_projection
        if isinstance(projection, nn.Module):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return cast(Tensor, x)


def can_be_packed(tower: nn.Module) -> bool:
    """Return whether a tower is causal and takes its features at the highest token id, as packing requires."""
    return bool(
        isinstance(tower, open_clip.transformer.TextTransformer)
        and tower.attn_mask is not None
        and tower.cls_emb is None
        and tower.pool_type == "argmax"
    )


def pack(rows: TokenRows) -> tuple[Int[Tensor, "2 m"], Int[Tensor, " n"]]:
    """Return the token ids of texts, each with its position in its text, and the places of their ends among them."""
    positions = torch.cat([torch.arange(length) for length in rows.lengths])
    return torch.stack([rows.ids, positions]), torch.tensor(rows.lengths).cumsum(0) - 1


def read_packed(tower: Callable[[Tensor], Tensor], rows: TokenRows) -> Float[Tensor, "n d"]:
    """Return the features of texts, several of which a tower such as `PackedTower` reads in one packed pass."""
    features = []
    passes = _passes(rows.lengths)
    for ids, lengths in zip(torch.split(rows.ids, [sum(each) for each in passes]), passes, strict=True):
        packed, ends = pack(TokenRows(ids, lengths))
        features.append(tower(packed)[ends])
    return torch.cat(features)


def _passes(lengths: list[int]) -> list[list[int]]:
    """Cut the lengths of texts, in their order, into passes."""
    passes: list[list[int]] = []
    for length in lengths:
        if passes and sum(passes[-1]) + length <= _MOST:
            passes[-1].append(length)
        else:
            passes.append([length])
    return passes
