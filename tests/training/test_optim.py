import math

import pytest
import torch

from hypclip.errors import ConfigError
from hypclip.training.optim import adamw, learning_rate_at, parameter_groups, set_learning_rate
from tests.support.models import TOWERS, tiny_model


def names(model: torch.nn.Module, group: dict) -> set[str]:
    chosen = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


def test_norms_biases_and_scalars_do_not_decay():
    model = tiny_model()
    decayed, kept = parameter_groups(model, 0.2)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.2, 0.0)
    scalars = {"log_curv", "log_logit_scale", "log_image_scale", "log_text_scale"}
    for name in names(model, decayed):
        assert name.endswith(("weight", "proj", "projection", "embedding")), name
        assert ".ln_" not in name, name
    expected = {n for n, _ in model.named_parameters() if ".ln_" in n or n.endswith("bias")} | scalars
    assert names(model, kept) == expected | {"image_tower.class_embedding"}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_kernels_of_convolutions_decay():
    model = tiny_model()
    assert "image_tower.conv1.weight" in names(model, parameter_groups(model, 0.2)[0])


def test_frozen_parameters_are_left_out():
    model = tiny_model(learn_curv=False)
    model.text_tower.requires_grad_(False)
    optimised = set().union(*(names(model, group) for group in parameter_groups(model, 0.2)))
    assert optimised == {n for n, _ in model.named_parameters() if not n.startswith("text_tower.")} - {"log_curv"}


def test_only_what_decays_moves_without_a_gradient():
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, learning_rate=0.1, weight_decay=0.5, betas=(0.9, 0.98))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if p.ndim >= 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor, rtol=1e-6, atol=0, msg=name)


def test_without_options_the_order_of_parameters_is_that_of_the_model():
    """Checkpoints hold the optimiser's moments by this order."""
    model = tiny_model()
    decayed, kept = parameter_groups(model, 0.2)
    every = list(model.parameters())
    assert list(map(id, decayed["params"])) == [id(p) for p in every if p.ndim >= 2]
    assert list(map(id, kept["params"])) == [id(p) for p in every if p.ndim < 2]
    assert decayed["lr_scale"] == kept["lr_scale"] == 1.0


def test_norms_and_biases_can_decay_as_published_but_never_the_scalars():
    model = tiny_model(geometry="product", distance="l1", factor_dim=4, other_scales={"box_scale": 3.0})
    decayed, kept = parameter_groups(model, 0.2, decay_norms=True)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.2, 0.0)
    scalars = {n for n, _ in model.named_parameters() if n.startswith("log_")}
    assert names(model, kept) == scalars
    assert "log_other_scales.box_scale" in scalars
    assert {"image_tower.ln_post.bias", "text_tower.ln_final.weight"} < names(model, decayed)


TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_model_kwargs": {"depth": 2}}


@pytest.mark.parametrize("vision", [TOWERS["vision_cfg"], TIMM], ids=["open_clip", "timm"])
def test_the_learning_rate_falls_from_layer_to_layer(vision):
    model = tiny_model(towers={**TOWERS, "vision_cfg": vision})
    groups = parameter_groups(model, 0.2, image_layer_decay=0.5, text_layer_decay=0.1)
    assert [(g["weight_decay"], g["lr_scale"]) for g in groups] == [
        (decay, pytest.approx(scale)) for decay in (0.2, 0.0) for scale in _scales(decay, vision)
    ]
    scale = {name: g["lr_scale"] for g in groups for name in names(model, g)}
    assert len(scale) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    for name, its in scale.items():
        tower, block = (0.5 if name.startswith("image") else 0.1), "blocks."
        if block in name:
            power = 2 - int(name.split(block)[1].split(".")[0])
        else:
            above = ("ln_post", "ln_final", "proj", "trunk.norm", "head", "text_projection")
            is_above = name.split("_tower.")[-1].startswith(above) or name.startswith("log_")
            power = 0 if is_above else 3
        assert its == pytest.approx(tower**power), name


def _scales(decay: float, vision: dict) -> list[float]:
    """Token and position embeddings decay, and open_clip's class embedding and first norm do not."""
    text = [0.001, 0.01, 0.1] if decay else [0.01, 0.1]
    return sorted([*text, 0.125, 0.25, 0.5, 1.0])


def test_layer_decay_scales_the_schedule():
    model = tiny_model()
    optimizer = adamw(model, learning_rate=0.1, weight_decay=0.0, betas=(0.9, 0.98), image_layer_decay=0.5)
    assert {g["lr"] for g in optimizer.param_groups} == {0.1 * s for s in (0.125, 0.25, 0.5, 1.0)}
    set_learning_rate(optimizer, 0.01)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name, scale in (
        ("image_tower.conv1.weight", 0.125),
        ("image_tower.transformer.resblocks.0.ln_1.bias", 0.25),
        ("image_tower.transformer.resblocks.1.ln_1.bias", 0.5),
        ("image_tower.proj", 1.0),
        ("text_tower.token_embedding.weight", 1.0),
        ("log_curv", 1.0),
    ):
        moved = before[name] - dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.01 * scale), rtol=1e-3, atol=1e-7)


def test_layer_decay_of_unknown_blocks_is_refused():
    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    model = tiny_model(towers={**TOWERS, "vision_cfg": resnet})
    with pytest.raises(ConfigError, match=r"tune.image_layer_decay needs a transformer .* got a ModifiedResNet"):
        parameter_groups(model, 0.2, image_layer_decay=0.5)
    assert len(parameter_groups(model, 0.2, text_layer_decay=0.5)) == 7


def test_a_step_is_adams():
    p = torch.nn.Linear(1, 1, bias=False)
    before = p.weight.item()
    optimizer = adamw(p, learning_rate=0.01, weight_decay=0.0, betas=(0.9, 0.98))
    first, second = 3.0, -1.0
    m = v = 0.0
    expected = before
    for step, gradient in enumerate((first, second), start=1):
        p.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * gradient**2
        expected -= 0.01 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.98**step)) + 1e-8)
        assert p.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    def at(step: int) -> float:
        return learning_rate_at(step, peak=2.0, warmup_steps=4, steps=12)

    assert [at(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert at(4) == 2.0
    assert at(6) == pytest.approx(1 + math.cos(math.pi / 4))
    assert at(8) == pytest.approx(1.0)
    assert at(11) == pytest.approx(1 + math.cos(math.pi * 7 / 8))
    assert at(12) == at(500) == 0.0
    assert all(at(step) > at(step + 1) for step in range(4, 12))


@pytest.mark.parametrize(("step", "expected"), [(0, 3.0), (5, 1.5), (10, 0.0)])
def test_without_warm_up_the_first_step_has_the_peak(step, expected):
    assert learning_rate_at(step, peak=3.0, warmup_steps=0, steps=10) == pytest.approx(expected)


def test_a_run_shorter_than_its_warm_up_stays_in_it():
    assert learning_rate_at(4, peak=1.0, warmup_steps=10, steps=5) == 0.5
    assert learning_rate_at(10, peak=1.0, warmup_steps=10, steps=10) == 1.0
