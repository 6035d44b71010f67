"""Texts one behind the other in one row, so that a text tower computes no padding."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_MOST = 128
"""Tokens of a pass; with more, attention, which looks at all pairs, costs what padding would."""


class PackedTower(nn.Module):
    """A text tower that reads packed texts: each token sees those before it in its own text.

    Args:
        tower: one that `can_be_packed`, whose weights are shared.
    """

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, packed: Int[Tensor, "2 n"]) -> Float[Tensor, "n d"]:
        """Return at each of the tokens that `pack` returns the features of a text that ends there."""
        tower: Any = self.tower
        ids, places = packed.unbind(0)
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(ids).to(dtype) + tower.positional_embedding[places].to(dtype)
        text, index = (places == 0).cumsum(0), torch.arange(packed.shape[1], device=packed.device)
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
    """Return whether the features of a text are those at its end-of-text token, which sees what is before it."""
    return bool(
        isinstance(tower, open_clip.transformer.TextTransformer)
        and tower.attn_mask is not None
        and tower.cls_emb is None
        and tower.pool_type == "argmax"
    )


def pack(tokens: Int[Tensor, "n length"]) -> tuple[Int[Tensor, "2 m"], Int[Tensor, " n"]]:
    """Return token ids and the place of each in its text, from 0, and at which of them each text ends.

    Args:
        tokens: rows of token ids, the first of the highest in a row being its end-of-text token.
    """
    lengths = (tokens.argmax(1) + 1).tolist()
    ids = torch.cat([row[:length] for row, length in zip(tokens, lengths, strict=True)])
    places = torch.cat([torch.arange(length, device=tokens.device) for length in lengths])
    return torch.stack([ids, places]), torch.tensor(list(itertools.accumulate(lengths)), device=tokens.device) - 1


def unpadded(packed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a tower for rows of token ids (N, L), which lets another, such as a `PackedTower`, read them packed."""

    def read(tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        features = []
        for rows in torch.split(tokens, _sizes((tokens.argmax(1) + 1).tolist())):
            row, ends = pack(rows)
            features.append(packed(row)[ends])
        return torch.cat(features)

    return read


def _sizes(lengths: list[int]) -> list[int]:
    """Return how many texts go into each pass, in their order."""
    sizes, total = [0], 0
    for length in lengths:
        if sizes[-1] and total + length > _MOST:
            sizes.append(0)
            total = 0
        sizes[-1] += 1
        total += length
    return sizes
