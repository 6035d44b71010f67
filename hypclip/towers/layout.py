"""Layout of a tower: the names of its blocks, and of the parameters below and above them."""

from __future__ import annotations

from typing import NamedTuple

import open_clip
import timm
from torch import nn


class Layout(NamedTuple):
    """Prefixes of the parameter names of a tower's parts; parameters with none of them are the stem."""

    blocks: str
    final: tuple[str, ...]
    head: tuple[str, ...]

    def block_of(self, name: str) -> int | None:
        """Return the block that a parameter belongs to, counted from the input, or None."""
        return int(name.removeprefix(self.blocks).split(".")[0]) if name.startswith(self.blocks) else None

    def is_above(self, name: str) -> bool:
        """Return whether a parameter comes after the blocks: the last norm, pooling or the projection."""
        return name.startswith((*self.final, *self.head))


def layout(tower: nn.Module) -> Layout | None:
    """Return the layout of an open_clip, timm or BERT-like transformer, None for a tower of another kind."""
    match tower:
        case open_clip.transformer.VisionTransformer():
            return Layout("transformer.resblocks.", ("ln_post.", "attn_pool"), ("proj",))
        case open_clip.transformer.TextTransformer():
            return Layout("transformer.resblocks.", ("ln_final.",), ("text_projection",))
        case open_clip.timm_model.TimmModel(trunk=timm.models.VisionTransformer()):
            return Layout(
                "trunk.blocks.", ("trunk.norm.", "trunk.fc_norm.", "trunk.attn_pool."), ("trunk.head", "head.")
            )
        case open_clip.hf_model.HFTextEncoder() if hasattr(getattr(tower.transformer, "encoder", None), "layer"):
            return Layout("transformer.encoder.layer.", ("transformer.pooler.",), ("proj.",))
    return None


def blocks(tower: nn.Module) -> list[nn.Module]:
    """Return the blocks of a tower of known layout, from the input up."""
    where = layout(tower)
    assert where is not None
    return list(tower.get_submodule(where.blocks.removesuffix(".")).children())
