import copy
import functools
import itertools

import pytest
import torch
from torch import nn

import hypclip
from hypclip import checkpoint
from hypclip.config import build
from hypclip.errors import ConfigError
from hypclip.model import HypCLIP
from hypclip.objective import Objective
from hypclip.training.optim import adamw
from hypclip.training.step import forward_backward
from hypclip.training.tuning import LoraSettings, LowRank, TuneConfig, apply, keep_locked_in_eval, merged_state_dict
from tests.support.models import TOWERS, tiny_model
from tests.support.training import make_batch, tokens_of

LORA = TuneConfig(lora=LoraSettings(rank=4, alpha=8.0, image_blocks=1, text_blocks=2))
SCALARS = {"log_curv", "log_logit_scale", "log_image_scale", "log_text_scale"}
TIMM = {
    **TOWERS,
    "vision_cfg": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "token",
        "image_size": 32,
        "timm_model_kwargs": {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "proj_drop_rate": 0.2},
    },
}
RESNET = {**TOWERS, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}}
each_kind = pytest.mark.parametrize("towers", [TOWERS, TIMM], ids=["open_clip", "timm"])


def tuned(config: TuneConfig, towers: dict = TOWERS) -> HypCLIP:
    model = tiny_model(towers=towers)
    apply(model, config)
    return model


def trained(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def train(model: HypCLIP, updates: int = 3) -> None:
    objective = Objective.from_recipe("hycoclip")
    optimizer = adamw(model, learning_rate=1e-2, weight_decay=0.2, betas=(0.9, 0.98))
    for seed in range(updates):
        model.train()
        keep_locked_in_eval(model)
        optimizer.zero_grad()
        forward_backward(model, model, objective, make_batch(seed=seed))
        optimizer.step()
    model.eval()


def shake(model: nn.Module) -> None:
    """Give every adapter something to add."""
    for module in model.modules():
        if isinstance(module, LowRank):
            nn.init.normal_(module.up)


@torch.no_grad()
def features(model: HypCLIP) -> tuple[torch.Tensor, torch.Tensor]:
    batch = make_batch()
    model.eval()
    return model.encode_image(batch.images["image"]), model.encode_text(tokens_of(batch.texts)["text"])


# What is trained ------------------------------------------------------------------------------------------------------


def test_by_default_everything_is_trained():
    model = tiny_model()
    before = trained(model)
    apply(model, TuneConfig())
    assert trained(model) == before
    model.train()
    keep_locked_in_eval(model)
    assert all(module.training for module in model.modules())


def test_a_locked_tower_keeps_all_but_its_projection():
    text = {f"text_tower.{name}" for name, _ in tiny_model().text_tower.named_parameters()}
    assert trained(tuned(TuneConfig(lock_image=True))) == SCALARS | text | {"image_tower.proj"}
    image = {f"image_tower.{name}" for name, _ in tiny_model().image_tower.named_parameters()}
    assert trained(tuned(TuneConfig(lock_text=True))) == SCALARS | image | {"text_tower.text_projection"}


def test_the_last_blocks_can_stay_trained():
    model = tuned(TuneConfig(lock_image=True, lock_text=True, unlocked_image_blocks=1, unlocked_text_blocks=2))
    names = trained(model)
    blocks = {name for name in names if "resblocks" in name}
    assert {name for name in names - blocks if name.startswith("image")} == {
        "image_tower.proj",
        "image_tower.ln_post.weight",
        "image_tower.ln_post.bias",
    }
    assert {".".join(name.split(".")[:4]) for name in blocks} == {
        "image_tower.transformer.resblocks.1",
        "text_tower.transformer.resblocks.0",
        "text_tower.transformer.resblocks.1",
    }
    assert "text_tower.token_embedding.weight" not in names


def test_a_tower_of_unknown_blocks_is_locked_whole():
    model = tuned(TuneConfig(lock_image=True), RESNET)
    assert not any(name.startswith("image_tower") for name in trained(model))
    before = copy.deepcopy(model.image_tower.state_dict())
    train(model)
    assert all(torch.equal(x, before[name]) for name, x in model.image_tower.state_dict().items()), "batch statistics"


def test_what_was_frozen_stays_frozen():
    model = tiny_model(learn_curv=False)
    model.image_tower.positional_embedding.requires_grad_(False)
    apply(model, TuneConfig(lock_image=True, unlocked_image_blocks=2))
    assert not model.log_curv.requires_grad
    assert not model.image_tower.positional_embedding.requires_grad


@each_kind
def test_adapters_norms_projections_and_scalars_are_trained(towers):
    model = tuned(LORA, towers)
    names = {name for name in trained(model) if not name.endswith((".up", ".down"))}
    final, head = ("trunk.norm", "head.proj.weight") if towers is TIMM else ("ln_post", "proj")
    assert names == SCALARS | {
        f"image_tower.{final}.weight",
        f"image_tower.{final}.bias",
        f"image_tower.{head}",
        "text_tower.ln_final.weight",
        "text_tower.ln_final.bias",
        "text_tower.text_projection",
    }
    adapters = [module for module in model.modules() if isinstance(module, LowRank)]
    assert sorted(tuple(a.down.shape) for a in adapters) == [(1, 4, 32)] * 3 + [(3, 4, 32)] * 3
    assert sorted(tuple(a.up.shape) for a in adapters) == [(1, 32, 4)] * 3 + [(3, 32, 4)] * 3


@each_kind
@pytest.mark.parametrize(
    "config",
    [LORA, TuneConfig(lock_image=True), TuneConfig(lock_image=True, unlocked_image_blocks=1, lock_text=True)],
    ids=["lora", "locked", "blocks"],
)
def test_training_changes_what_is_trained_and_nothing_else(towers, config):
    model = tuned(config, towers)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    train(model)
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert changed == trained(model)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_locked_parts_are_in_evaluation_mode():
    model = tuned(TuneConfig(lock_image=True, unlocked_image_blocks=1), TIMM).train()
    keep_locked_in_eval(model)
    trunk = model.image_tower.trunk
    assert not any(m.training for m in itertools.chain(trunk.blocks[0].modules(), trunk.patch_embed.modules()))
    assert not trunk.pos_drop.training
    assert all(m.training for m in itertools.chain(trunk.blocks[1].modules(), model.image_tower.head.modules()))
    assert all(m.training for m in model.text_tower.modules())
    dropped = {**TOWERS, "vision_cfg": {**TOWERS["vision_cfg"], "patch_dropout": 0.5}}
    model = tuned(TuneConfig(lock_image=True), dropped).train()
    keep_locked_in_eval(model)
    assert not model.image_tower.patch_dropout.training


# Adapters -------------------------------------------------------------------------------------------------------------


@each_kind
def test_new_adapters_change_nothing(towers):
    plain = features(tiny_model(towers=towers))
    for ours, theirs in zip(features(tuned(LORA, towers)), plain, strict=True):
        assert torch.equal(ours, theirs)


@each_kind
def test_the_merged_model_is_the_trained_one(towers, tmp_path):
    model = tuned(LORA, towers)
    train(model)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    merged = merged_state_dict(model)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    fresh = tiny_model(seed=5, towers=towers)
    assert merged.keys() == fresh.state_dict().keys()
    fresh.load_state_dict(merged)
    for ours, theirs in zip(features(fresh), features(model), strict=True):
        assert torch.equal(ours, theirs)
    checkpoint.save(fresh, tmp_path)
    assert torch.equal(features(hypclip.load(tmp_path))[0], features(fresh)[0])


def test_without_adapters_the_merged_state_is_the_state():
    model = tiny_model()
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in merged_state_dict(model).items())


@torch.no_grad()
def test_an_adapter_adds_its_product_to_each_matrix():
    """Query, key and value have adapters of their own, as if they were three layers."""
    model = tuned(LORA)
    shake(model)
    attention = model.text_tower.transformer.resblocks[0].attn
    adapter = attention.parametrizations.in_proj_weight[0]
    plain = attention.parametrizations.in_proj_weight.original
    for i, (whole, base) in enumerate(zip(attention.in_proj_weight.chunk(3), plain.chunk(3), strict=True)):
        torch.testing.assert_close(whole, base + 8 / 4 * adapter.up[i] @ adapter.down[i])


@each_kind
def test_gradients_of_adapters_are_those_of_the_weights(towers):
    """Compared with a plain model whose weights are W + scale · up · down, written out."""
    model = tuned(LORA, towers)
    shake(model)
    plain = tiny_model(towers=towers)
    plain.load_state_dict(merged_state_dict(model))
    for m in (model, plain):
        m.eval()
        forward_backward(m, m, Objective.from_recipe("hycoclip"), make_batch())
    seen = 0
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            owner, weight = name.split(".parametrizations.")
            gradient = functools.reduce(getattr, [*owner.split("."), weight.split(".")[0]], plain).grad
            parts = gradient.unflatten(0, (module.up.shape[0], -1))
            torch.testing.assert_close(module.up.grad, 2.0 * parts @ module.down.mT, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(module.down.grad, 2.0 * module.up.mT @ parts, rtol=1e-3, atol=1e-5)
            seen += 1
    assert seen == 6


def test_adapters_stay_in_full_precision_under_autocast():
    model = tuned(LORA)
    shake(model)
    attention = model.text_tower.transformer.resblocks[1].attn
    plain = attention.in_proj_weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attention.in_proj_weight, plain)


def test_a_training_state_comes_back(tmp_path):
    model = tuned(LORA)
    train(model)
    checkpoint.save(model, tmp_path)
    again = tuned(LORA)
    checkpoint.load_weights(again, tmp_path)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in model.state_dict().items())


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "towers", "message"),
    [
        ({"lora": {"rank": 4}}, TOWERS, "tune.lora.image_blocks must be at most 2, the blocks of the tower, got 4"),
        (
            {"lora": {"image_blocks": 1}},
            TOWERS,
            "tune.lora.rank must be at most 32, .* got 128",
        ),
        ({"lora": {"rank": 4, "image_blocks": 1}}, TOWERS, "tune.lora.text_blocks must be at most 2, .* got 8"),
        ({"lora": {}, "lock_text": True}, TOWERS, "tune.lora and tune.lock_text exclude each other"),
        ({"lora": {}}, RESNET, "tune.lora.image_blocks needs a transformer .* got a ModifiedResNet whose blocks are"),
        ({"lock_image": True, "unlocked_image_blocks": 3}, TOWERS, "tune.unlocked_image_blocks must be at most 2"),
        ({"lock_image": True, "unlocked_image_blocks": 1}, RESNET, "tune.unlocked_image_blocks needs a transformer"),
        ({"unlocked_text_blocks": 1}, TOWERS, "tune.unlocked_text_blocks is 1 and tune.lock_text is false"),
    ],
)
def test_settings_that_cannot_work_are_named(data, towers, message):
    with pytest.raises(ConfigError, match=message):
        apply(tiny_model(towers=towers), build(TuneConfig, data, "tune"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"lora": {"ranks": 4}}, "unknown key 'tune.lora.ranks'"),
        ({"lora": {"rank": 0}}, "tune.lora.rank: .*greater than 0, got 0"),
        ({"image_layer_decay": 1.5}, "tune.image_layer_decay: .*got 1.5"),
        ({"image_layer_decay": 0}, "tune.image_layer_decay: .*got 0"),
    ],
)
def test_values_out_of_range_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        build(TuneConfig, data, "tune")
