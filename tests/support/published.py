"""State dicts of the published models' keys and shapes, and their forward pass in plain torch.

Both are written from facts about those models, and not with hypclip's tables or open_clip's towers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import conv2d, embedding, gelu, layer_norm, linear, normalize

KINDS = ("clip", "meru", "hycoclip", "phyclip", "uncha")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Shape:
    """What a published model is made of; PHyCLIP has factors of 8 dimensions each."""

    width: int = 384
    depth: int = 12
    heads: int = 12
    image_size: int = 224
    text_width: int = 512
    text_depth: int = 12
    context: int = 77
    dim: int = 512

    @property
    def factors(self) -> int:
        return self.dim // 8


S = Shape()
B = replace(S, width=768)
L = replace(S, width=1024, depth=24, heads=16)
SMALL = Shape(width=48, depth=2, heads=6, image_size=32, text_width=128, text_depth=2, context=16, dim=32)


def key_shapes(kind: str, shape: Shape = S) -> dict[str, tuple[int, ...]]:
    w, t, patches = shape.width, shape.text_width, (shape.image_size // 16) ** 2
    keys: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "pixel_mean": (3, 1, 1),
        "pixel_std": (3, 1, 1),
        "visual.cls_token": (1, 1, w),
        "visual.pos_embed": (1, patches + 1, w),
        "visual.patch_embed.proj.weight": (w, 3, 16, 16),
        "visual.patch_embed.proj.bias": (w,),
        "visual.norm.weight": (w,),
        "visual.norm.bias": (w,),
        "textual.posit_embed": (shape.context, t),
        "textual.attn_mask": (shape.context, shape.context),
        "textual.token_embed.weight": (49408, t),
        "textual.ln_final.weight": (t,),
        "textual.ln_final.bias": (t,),
        "visual_proj.weight": (shape.dim, w),
        "textual_proj.weight": (shape.dim, t),
    }
    for i in range(shape.depth):
        for name, rows, columns in (
            ("attn.qkv", 3 * w, w),
            ("attn.proj", w, w),
            ("mlp.fc1", 4 * w, w),
            ("mlp.fc2", w, 4 * w),
        ):
            keys |= {f"visual.blocks.{i}.{name}.weight": (rows, columns), f"visual.blocks.{i}.{name}.bias": (rows,)}
        keys |= {f"visual.blocks.{i}.norm{n}.{part}": (w,) for n in (1, 2) for part in ("weight", "bias")}
    for i in range(shape.text_depth):
        block = f"textual.resblocks.{i}"
        keys |= {f"{block}.attn.in_proj_weight": (3 * t, t), f"{block}.attn.in_proj_bias": (3 * t,)}
        for name, rows, columns in (("attn.out_proj", t, t), ("mlp.c_fc", 4 * t, t), ("mlp.c_proj", t, 4 * t)):
            keys |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
        keys |= {f"{block}.ln_{n}.{part}": (t,) for n in (1, 2) for part in ("weight", "bias")}
    if kind != "clip":
        keys |= {"curv": (), "visual_alpha": (), "textual_alpha": ()}
    if kind == "phyclip":
        series = ("curvs", "visual_concept_alphas", "textual_concept_alphas")
        keys |= {f"{name}.{i}": () for name in series for i in range(shape.factors)}
    if kind == "uncha":
        keys |= {"global_logit_scale": (), "global_local_logit_scale": (), "local_logit_scale": ()}
        keys |= {"textual.min_radius_head.0.weight": (1, t), "textual.min_radius_head.0.bias": (1,)}
    return keys


def peer_weights(kind: str, shape: Shape = S, *, seed: int = 0, mean: tuple[float, ...] = IMAGENET_MEAN) -> dict:
    """Draw weights, none of them 0 or 1 where a wrong mapping could hide.

    The residual stream is small, so that the epsilon of the LayerNorms matters.
    """
    random = torch.Generator().manual_seed(seed)
    state = {}
    for key, size in key_shapes(kind, shape).items():
        noise = torch.randn(size, generator=random)
        fan_in = math.prod(size[1:]) if len(size) > 1 else 1
        match key.split("."):
            case [*_, "attn_mask"]:
                state[key] = torch.ones(size, dtype=torch.bool).triu(1)
            case ["pixel_mean"]:
                state[key] = torch.tensor(mean).view(size)
            case ["pixel_std"]:
                state[key] = torch.tensor(IMAGENET_STD).view(size)
            case [*_, "posit_embed" | "cls_token" | "pos_embed"] | [*_, "token_embed", "weight"]:
                state[key] = noise * 0.05
            case [*_, "patch_embed" | "attn" | "mlp", "proj" | "out_proj" | "fc2" | "c_proj", "weight"]:
                state[key] = noise * 0.05 / math.sqrt(fan_in)
            case [*_, "weight"] if len(size) > 1:
                state[key] = noise * 1.5 / math.sqrt(fan_in)
            case [*_, "weight"]:
                state[key] = 1 + 0.2 * noise
            case ["logit_scale" | "global_logit_scale" | "local_logit_scale" | "global_local_logit_scale"]:
                state[key] = 3 + 0.3 * noise
            case ["curv"] | ["curvs", _]:
                state[key] = -1 + 0.5 * noise
            case ["visual_alpha" | "textual_alpha"]:
                state[key] = 0.05 * noise - 0.5 * math.log(shape.dim)
            case ["visual_concept_alphas" | "textual_concept_alphas", _]:
                state[key] = 0.05 * noise - 0.5 * math.log(8)
            case _:  # biases
                state[key] = 0.05 * noise
    return state


def peer_image_features(state: dict, pixels: Tensor, *, heads: int, eps: float = 1e-5) -> Tensor:
    """Return the projected class token of a pre-norm vision transformer; `pixels` are normalised."""
    w = state["visual.patch_embed.proj.weight"]
    patches = conv2d(pixels, w, state["visual.patch_embed.proj.bias"], stride=16).flatten(2).mT
    x = torch.cat([state["visual.cls_token"].expand(len(pixels), -1, -1), patches], 1) + state["visual.pos_embed"]
    for i in range(_depth(state, "visual.blocks.")):
        block = {k.removeprefix(f"visual.blocks.{i}."): v for k, v in state.items()}
        y = layer_norm(x, x.shape[-1:], block["norm1.weight"], block["norm1.bias"], eps)
        y = _attend(linear(y, block["attn.qkv.weight"], block["attn.qkv.bias"]), heads)
        x = x + linear(y, block["attn.proj.weight"], block["attn.proj.bias"])
        y = layer_norm(x, x.shape[-1:], block["norm2.weight"], block["norm2.bias"], eps)
        y = gelu(linear(y, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + linear(y, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    x = layer_norm(x, x.shape[-1:], state["visual.norm.weight"], state["visual.norm.bias"], eps)
    return linear(x[:, 0], state["visual_proj.weight"])


def peer_text_features(state: dict, tokens: Tensor) -> Tensor:
    """Return the projected features at the end-of-text token, the largest id, of a causal transformer."""
    x = embedding(tokens, state["textual.token_embed.weight"]) + state["textual.posit_embed"][: tokens.shape[1]]
    for i in range(_depth(state, "textual.resblocks.")):
        block = {k.removeprefix(f"textual.resblocks.{i}."): v for k, v in state.items()}
        y = layer_norm(x, x.shape[-1:], block["ln_1.weight"], block["ln_1.bias"])
        y = linear(y, block["attn.in_proj_weight"], block["attn.in_proj_bias"])
        y = _attend(y, x.shape[-1] // 64, causal=True)
        x = x + linear(y, block["attn.out_proj.weight"], block["attn.out_proj.bias"])
        y = layer_norm(x, x.shape[-1:], block["ln_2.weight"], block["ln_2.bias"])
        y = gelu(linear(y, block["mlp.c_fc.weight"], block["mlp.c_fc.bias"]))
        x = x + linear(y, block["mlp.c_proj.weight"], block["mlp.c_proj.bias"])
    x = layer_norm(x, x.shape[-1:], state["textual.ln_final.weight"], state["textual.ln_final.bias"])
    return linear(x[torch.arange(len(x)), tokens.argmax(-1)], state["textual_proj.weight"])


def peer_lift(state: dict, kind: str, features: Tensor, modality: str) -> Tensor:
    """Place features: on the sphere, or at exp0 of alpha · features, for PHyCLIP in each factor."""
    if kind == "clip":
        return normalize(features, dim=-1)
    if kind != "phyclip":
        return _exp0(features * state[f"{modality}_alpha"].exp(), state["curv"].exp())
    factors = features.split(8, dim=-1)
    return torch.cat(
        [
            _exp0(v * state[f"{modality}_concept_alphas.{i}"].exp(), state[f"curvs.{i}"].exp())
            for i, v in enumerate(factors)
        ],
        dim=-1,
    )


def peer_logits(state: dict, kind: str, x: Tensor, y: Tensor) -> Tensor:
    """Return what they train with: scale · cosine, −scale · distance, or −scale · mean distance of the factors."""
    if kind == "clip":
        return state["logit_scale"].exp() * x @ y.T
    if kind != "phyclip":
        name = "global_logit_scale" if kind == "uncha" else "logit_scale"
        return -state[name].exp() * _dist(x, y, state["curv"].exp())
    pairs = enumerate(zip(x.split(8, -1), y.split(8, -1), strict=True))
    return -state["logit_scale"].exp() * torch.stack(
        [_dist(a, b, state[f"curvs.{i}"].exp()) for i, (a, b) in pairs]
    ).mean(0)


def _depth(state: dict, prefix: str) -> int:
    return len({key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)})


def _attend(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _exp0(v: Tensor, c: Tensor) -> Tensor:
    r = c.sqrt() * v.norm(dim=-1, keepdim=True)
    return torch.sinh(r) / r * v


def _dist(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    x, y, c = x.double(), y.double(), c.double()
    times = (1 / c + x.square().sum(-1, keepdim=True)).sqrt() @ (1 / c + y.square().sum(-1, keepdim=True)).sqrt().T
    return ((c * (times - x @ y.T)).clamp(min=1).acosh() / c.sqrt()).float()
