"""The keys of published checkpoints: the architecture they belong to, the name of each in ours, and its shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from hypclip.errors import CheckpointError, first_few

Kind = Literal["clip", "meru", "hycoclip", "phyclip", "uncha"]
MERU_OR_HYCOCLIP = "meru or hycoclip"
"""The kind of a file with the keys that both have."""

FACTOR_SERIES = {
    "curvs": "log_curv",
    "visual_concept_alphas": "log_image_scale",
    "textual_concept_alphas": "log_text_scale",
}
"""Scalars that PHyCLIP has one per factor, to the parameter of ours that holds them all."""

_MERU_SCALARS = {"curv": "log_curv", "visual_alpha": "log_image_scale", "textual_alpha": "log_text_scale"}
_UNCHA_SCALES = {
    "global_logit_scale": "log_logit_scale",
    "local_logit_scale": "log_other_scales.box_scale",
    "global_local_logit_scale": "log_other_scales.box_whole_scale",
}
_MIN_RADIUS_HEAD = ("textual.min_radius_head.0.weight", "textual.min_radius_head.0.bias")
# There, but no part of the embeddings: a mask that is rebuilt, and parameters that an inherited class leaves behind.
_UNUSED: dict[str, tuple[str, ...]] = {
    "clip": ("textual.attn_mask",),
    MERU_OR_HYCOCLIP: ("textual.attn_mask",),
    "phyclip": ("textual.attn_mask", *_MERU_SCALARS),
    "uncha": ("textual.attn_mask", "logit_scale", *_MIN_RADIUS_HEAD),
}


@dataclass(frozen=True)
class Size:
    """The shape of the towers, as far as the weights do not show it (heads) or all must agree on it."""

    name: str
    timm_name: str
    width: int
    depth: int
    heads: int
    patch: int = 16
    image_size: int = 224
    text_width: int = 512
    text_depth: int = 12
    text_heads: int = 8
    context_length: int = 77
    vocab_size: int = 49408
    dim: int = 512


SIZES = (
    Size("s", "vit_small_patch16_224", width=384, depth=12, heads=12),  # timm's own has 6 heads
    Size("b", "vit_base_patch16_224", width=768, depth=12, heads=12),
    Size("l", "vit_large_patch16_224", width=1024, depth=24, heads=16),
)


class Architecture(NamedTuple):
    """Model and size of a state dict; `factors` is 1 but for a product."""

    kind: str
    size: Size
    factors: int = 1


class ExpectedTensor(NamedTuple):
    """A tensor of a published file: its name in our model, None where several are gathered into one, and its shape."""

    name: str | None
    shape: tuple[int, ...]


def recognise(tensors: Mapping[str, Tensor], sizes: Iterable[Size] = SIZES) -> Architecture:
    """Recognise model and size by keys and shapes alone.

    Raises:
        CheckpointError: the widths are none of the published ones, or factors do not divide the embedding.
    """
    kind = _kind(tensors)
    if "visual.cls_token" not in tensors:
        raise CheckpointError(
            f"visual.cls_token is missing: expected the weights of {', '.join(get_args(Kind))}, "
            f"got {len(tensors)} tensors, {', '.join(sorted(tensors)[:3])} first"
        )
    width = tensors["visual.cls_token"].shape[-1] if tensors["visual.cls_token"].ndim else 0
    known = {size.width: size for size in sizes}
    if width not in known:
        choices = ", ".join(f"{w} (ViT-{size.name.upper()})" for w, size in known.items())
        raise CheckpointError(f"visual.cls_token has width {width}, and the published image towers have {choices}")
    if kind != "phyclip":
        return Architecture(kind, known[width])
    parts = [key.rpartition(".") for key in tensors]
    factors = len({number for series, _, number in parts if series in FACTOR_SERIES and number.isdecimal()})
    if not factors or known[width].dim % factors:
        raise CheckpointError(
            f"curvs.* and the alphas are of {factors} factors, which do not divide the embedding's "
            f"{known[width].dim} dimensions"
        )
    return Architecture(kind, known[width], factors)


def expected_tensors(architecture: Architecture) -> dict[str, ExpectedTensor]:
    """Return every key that a state dict of this architecture must have, with its tensor."""
    size, scalar = architecture.size, ()
    table = {f"visual.{key}": ExpectedTensor(f"image_tower.trunk.{key}", shape) for key, shape in _image_shapes(size)}
    table["visual_proj.weight"] = ExpectedTensor("image_tower.head.proj.weight", (size.dim, size.width))
    table |= {f"textual.{key}": ExpectedTensor(f"text_tower.{ours}", shape) for key, ours, shape in _text_shapes(size)}
    table["textual_proj.weight"] = ExpectedTensor("text_tower.text_projection", (size.dim, size.text_width))
    table |= {key: ExpectedTensor(None, (3, 1, 1)) for key in ("pixel_mean", "pixel_std")}
    scalars: dict[str, str | None] = {"logit_scale": "log_logit_scale"}
    match architecture.kind:
        case "clip":
            pass
        case "uncha":
            scalars = {**_UNCHA_SCALES, **_MERU_SCALARS}
        case "phyclip":
            scalars |= {f"{series}.{i}": None for series in FACTOR_SERIES for i in range(architecture.factors)}
        case _:
            scalars |= _MERU_SCALARS
    return table | {key: ExpectedTensor(ours, scalar) for key, ours in scalars.items()}


def require_keys(tensors: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Account for every key.

    Raises:
        CheckpointError: keys that are missing, unknown, or not finite numbers of the right shape; it names the first.
    """
    table, unused = expected_tensors(architecture), _UNUSED[architecture.kind]
    problems = [f"{key} is missing" for key in sorted(table.keys() - tensors.keys())]
    problems += [f"{key} is unknown" for key in sorted(tensors.keys() - table.keys() - set(unused))]
    for key in sorted(table.keys() & tensors.keys()):
        value, shape = tensors[key], table[key].shape
        if tuple(value.shape) != shape:
            problems.append(f"{key} has shape {tuple(value.shape)}, expected {shape}")
        elif not value.is_floating_point():
            problems.append(f"{key} has type {value.dtype}, expected floating-point numbers")
        elif value.is_meta or value.layout != torch.strided:
            problems.append(f"{key} holds no numbers laid out one after another")
        elif not value.isfinite().all():
            problems.append(f"{key} has numbers that are not finite")
    if problems:
        raise CheckpointError(
            f"it looks like {architecture.kind} with a ViT-{architecture.size.name.upper()}, but {first_few(problems)}"
        )


def _kind(tensors: Mapping[str, Tensor]) -> str:
    if any(key.partition(".")[0] in FACTOR_SERIES for key in tensors):
        return "phyclip"
    if tensors.keys() & (_UNCHA_SCALES.keys() | set(_MIN_RADIUS_HEAD)):
        return "uncha"
    return MERU_OR_HYCOCLIP if tensors.keys() & _MERU_SCALARS.keys() else "clip"


def _image_shapes(size: Size) -> Iterable[tuple[str, tuple[int, ...]]]:
    w, patches = size.width, (size.image_size // size.patch) ** 2
    yield "cls_token", (1, 1, w)
    yield "pos_embed", (1, 1 + patches, w)
    yield "patch_embed.proj.weight", (w, 3, size.patch, size.patch)
    yield "patch_embed.proj.bias", (w,)
    for i in range(size.depth):
        for layer, rows, columns in (
            ("attn.qkv", 3 * w, w),
            ("attn.proj", w, w),
            ("mlp.fc1", 4 * w, w),
            ("mlp.fc2", w, 4 * w),
        ):
            yield f"blocks.{i}.{layer}.weight", (rows, columns)
            yield f"blocks.{i}.{layer}.bias", (rows,)
        yield from ((f"blocks.{i}.{norm}.{part}", (w,)) for norm in ("norm1", "norm2") for part in ("weight", "bias"))
    yield from ((f"norm.{part}", (w,)) for part in ("weight", "bias"))


def _text_shapes(size: Size) -> Iterable[tuple[str, str, tuple[int, ...]]]:
    w = size.text_width
    yield "token_embed.weight", "token_embedding.weight", (size.vocab_size, w)
    yield "posit_embed", "positional_embedding", (size.context_length, w)
    block: dict[str, Any] = {
        "attn.in_proj_weight": (3 * w, w),
        "attn.in_proj_bias": (3 * w,),
        "attn.out_proj.weight": (w, w),
        "attn.out_proj.bias": (w,),
        "mlp.c_fc.weight": (4 * w, w),
        "mlp.c_fc.bias": (4 * w,),
        "mlp.c_proj.weight": (w, 4 * w),
        "mlp.c_proj.bias": (w,),
        **{f"{norm}.{part}": (w,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")},
    }
    for i in range(size.text_depth):
        yield from ((f"resblocks.{i}.{key}", f"transformer.resblocks.{i}.{key}", s) for key, s in block.items())
    yield from ((f"ln_final.{part}", f"ln_final.{part}", (w,)) for part in ("weight", "bias"))
