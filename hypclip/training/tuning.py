"""Choice of what is trained: the whole model, only the last blocks of a tower, or low-rank adapters of its attention.

Locked towers: Zhai et al. 2022, arXiv:2111.07991. Low-rank adapters (LoRA): Hu et al. 2022, arXiv:2106.09685. The
adapters change the weights themselves, W + scale · up · down, and leave W as it is: they work where a module uses its
weights without calling the layer that holds them, as torch's attention does, and the merged model is the trained one to
the last bit.
"""

from __future__ import annotations

import contextlib
from dataclasses import field
from typing import Annotated, NamedTuple

import torch
from annotated_types import Interval
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hypclip.config import STRICT_KEYS
from hypclip.errors import ConfigError
from hypclip.model import HypCLIP
from hypclip.towers.layout import Layout, blocks, layout

LayerDecay = Annotated[float, Interval(gt=0, le=1)]


@dataclass(frozen=True, config=STRICT_KEYS)
class LoraSettings:
    """Adapters of the query, key, value and output weights in the last blocks of the towers.

    Besides them the last norm, the pooling and the projection of each tower and the model's scalars are trained. The
    defaults are those of HAC.

    Args:
        rank: of each adapter.
        alpha: adapters are multiplied by alpha / rank; `rank` when not given.
        image_blocks: how many blocks of the image tower have them, the last ones.
        text_blocks: how many of the text tower.
    """

    rank: PositiveInt = 128
    alpha: PositiveFloat | None = None
    image_blocks: NonNegativeInt = 4
    text_blocks: NonNegativeInt = 8


@dataclass(frozen=True, config=STRICT_KEYS)
class TuneConfig:
    """Parts of the model that are trained; by default all.

    With at least one unlocked block, the last norm and the pooling of a locked tower are trained too.

    Args:
        lock_image: whether the image tower keeps its weights but for its projection to the embedding.
        lock_text: whether the text tower does.
        unlocked_image_blocks: how many of the last blocks of a locked image tower are trained all the same.
        unlocked_text_blocks: how many of a locked text tower.
        lora: low-rank adapters, in place of locked towers; none when not given.
        image_layer_decay: by how much the learning rate falls from one layer to the layer below it, see
            hypclip/training/optim.py.
        text_layer_decay: the same of the text tower.
    """

    lock_image: bool = False
    lock_text: bool = False
    unlocked_image_blocks: NonNegativeInt = 0
    unlocked_text_blocks: NonNegativeInt = 0
    lora: LoraSettings | None = field(default=None)
    image_layer_decay: LayerDecay | None = None
    text_layer_decay: LayerDecay | None = None


class LowRank(nn.Module):
    """Add scale · up · down to a weight, part by part where it holds several matrices one below the other."""

    def __init__(self, weight: Tensor, parts: int, settings: LoraSettings):
        super().__init__()
        rows, columns = weight.shape
        self.scale = (settings.alpha or settings.rank) / settings.rank
        self.down = nn.Parameter(weight.new_empty(parts, settings.rank, columns).uniform_(-1, 1) * columns**-0.5)
        self.up = nn.Parameter(weight.new_zeros(parts, rows // parts, settings.rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with the adapter, in the weight's own precision whatever the towers run in."""
        with _without_autocast(weight.device.type):
            return weight + self.scale * (self.up @ self.down).flatten(0, 1)


class _Target(NamedTuple):
    module: str
    weight: str
    parts: int


_TARGETS = {
    "transformer.resblocks.": (_Target("attn", "in_proj_weight", 3), _Target("attn.out_proj", "weight", 1)),
    "trunk.blocks.": (_Target("attn.qkv", "weight", 3), _Target("attn.proj", "weight", 1)),
    "transformer.encoder.layer.": (
        *(_Target(f"attention.self.{name}", "weight", 1) for name in ("query", "key", "value")),
        _Target("attention.output.dense", "weight", 1),
    ),
}
"""The attention weights of a block, by where the tower keeps its blocks."""


def _without_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    """Return a context without autocast; the meta device, on which work is counted, knows none."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else contextlib.nullcontext()


def apply(model: HypCLIP, config: TuneConfig) -> None:
    """Freeze what is not trained and put adapters in; once per model, before its optimiser is made.

    Nothing that was frozen before becomes trainable. Adapters draw from torch's global random numbers.

    Raises:
        ConfigError: settings that exclude each other, or that a tower cannot follow.
    """
    _refuse_contradictions(config)
    for side, tower, locked, unlocked in (
        ("image", model.image_tower, config.lock_image, config.unlocked_image_blocks),
        ("text", model.text_tower, config.lock_text, config.unlocked_text_blocks),
    ):
        if locked:
            _lock(tower, unlocked, f"unlocked_{side}_blocks")
    if config.lora is not None:
        _add_adapters(model.image_tower, config.lora, config.lora.image_blocks, "lora.image_blocks")
        _add_adapters(model.text_tower, config.lora, config.lora.text_blocks, "lora.text_blocks")


def keep_locked_in_eval(model: HypCLIP) -> None:
    """Put the parts of the towers that are not trained into evaluation mode; call it after every `model.train()`.

    So neither dropout nor statistics over batches change what a locked part computes.
    """
    for tower in (model.image_tower, model.text_tower):
        where = layout(tower)
        if where is None:
            if _is_frozen(tower):
                tower.eval()
            continue
        for block in blocks(tower):
            if _is_frozen(block):
                block.eval()
        if any(p.requires_grad for name, p in tower.named_parameters() if _is_stem(where, name)):
            continue
        for name, module in tower.named_modules():
            path = f"{name}."
            if name and _is_stem_module(where, path):
                module.eval()


def is_adapted(model: HypCLIP) -> bool:
    """Return whether a model has adapters in its towers."""
    return any(isinstance(module, LowRank) for module in model.modules())


def plain(model: HypCLIP) -> HypCLIP:
    """Return a model without adapters: itself, or a copy into whose weights they are merged."""
    if not is_adapted(model):
        return model
    copy = HypCLIP(model.config)
    copy.load_state_dict(merged_state_dict(model))
    return copy.to(model.device)


def merged_state_dict(model: HypCLIP) -> dict[str, Tensor]:
    """Return the state of the plain model, adapters merged into the weights; `model` itself stays as it is."""
    merged: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            owner, adapted, rest = name.partition(".parametrizations.")
            if not adapted:
                merged[name] = tensor
            elif rest.endswith(".original"):
                weight = rest.removesuffix(".original")
                merged[f"{owner}.{weight}"] = getattr(model.get_submodule(owner), weight)
    return merged


def _refuse_contradictions(config: TuneConfig) -> None:
    for side, locked, unlocked in (
        ("image", config.lock_image, config.unlocked_image_blocks),
        ("text", config.lock_text, config.unlocked_text_blocks),
    ):
        if unlocked and not locked:
            raise ConfigError(
                f"tune.unlocked_{side}_blocks is {unlocked} and tune.lock_{side} is false: without a lock every block "
                f"is trained; set tune.lock_{side} or leave the blocks out"
            )
        if locked and config.lora is not None:
            raise ConfigError(
                f"tune.lora and tune.lock_{side} exclude each other: adapters lock the towers themselves; for none in "
                f"the {side} tower set tune.lora.{side}_blocks to 0"
            )


def _lock(tower: nn.Module, unlocked: int, key: str) -> None:
    where = layout(tower)
    if where is None:
        if unlocked:
            raise _unknown_blocks(tower, key)
        tower.requires_grad_(False)
        return
    first_unlocked = _first_of_last(tower, unlocked, key)
    for name, parameter in tower.named_parameters():
        block = where.block_of(name)
        above = name.startswith(where.head) or (bool(unlocked) and name.startswith(where.final))
        if not above and (block is None or block < first_unlocked):
            parameter.requires_grad_(False)


def _add_adapters(tower: nn.Module, settings: LoraSettings, count: int, key: str) -> None:
    where = layout(tower)
    if where is None:
        raise _unknown_blocks(tower, key)
    first = _first_of_last(tower, count, key)
    for name, parameter in tower.named_parameters():
        if not where.is_above(name):
            parameter.requires_grad_(False)
    for block in blocks(tower)[first:]:
        for target in _TARGETS[where.blocks]:
            _adapt(block, target, settings, key)


def _adapt(block: nn.Module, target: _Target, settings: LoraSettings, key: str) -> None:
    try:
        module = block.get_submodule(target.module)
        weight = getattr(module, target.weight)
    except AttributeError as error:
        raise ConfigError(
            f"tune.{key}: blocks of kind {type(block).__name__} have no {target.module}.{target.weight} to adapt: "
            "set it to 0 or train without tune.lora"
        ) from error
    assert not parametrize.is_parametrized(module, target.weight), "the model has adapters already"
    largest = min(weight.shape[0] // target.parts, weight.shape[1])
    if settings.rank > largest:
        raise ConfigError(
            f"tune.lora.rank must be at most {largest}, the width of the attention of tune.{key}, got {settings.rank}"
        )
    parametrize.register_parametrization(module, target.weight, LowRank(weight, target.parts, settings))


def _first_of_last(tower: nn.Module, count: int, key: str) -> int:
    """Return the index of the first of the last `count` blocks."""
    depth = len(blocks(tower))
    if count > depth:
        raise ConfigError(f"tune.{key} must be at most {depth}, the blocks of the tower, got {count}")
    return depth - count


def _unknown_blocks(tower: nn.Module, key: str) -> ConfigError:
    return ConfigError(
        f"tune.{key} needs a transformer from open_clip, timm or transformers, got a {type(tower).__name__} whose "
        "blocks are unknown: lock it as a whole or train all of it"
    )


def _is_stem(where: Layout, name: str) -> bool:
    return where.block_of(name) is None and not where.is_above(name)


def _is_stem_module(where: Layout, path: str) -> bool:
    return not (path.startswith(where.blocks) or where.blocks.startswith(path) or where.is_above(path))


def _is_frozen(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters())
