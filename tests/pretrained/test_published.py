"""Published checkpoints load with the embeddings of the models they come from, and nothing else loads."""

import functools
from dataclasses import replace

import pytest
import torch
from PIL import Image

from hypclip import checkpoint
from hypclip.errors import CheckpointError, ConfigError, InputError
from hypclip.geometry.entailment import Cone, Plane
from hypclip.model import HypCLIP, ModelConfig
from hypclip.objective import Objective
from hypclip.pretrained.published import convert
from hypclip.pretrained.published.conversion import model_config, renamed, require_structure
from hypclip.pretrained.published.keys import SIZES, Size, recognise
from hypclip.towers.build import fix_position
from tests.support.published import (
    KINDS,
    SMALL,
    B,
    L,
    S,
    key_shapes,
    peer_image_features,
    peer_lift,
    peer_logits,
    peer_text_features,
    peer_weights,
)

TINY = Size("tiny", "vit_small_patch16_224", 48, 2, 6, 16, 32, 128, 2, 2, 16, 49408, 32)
EITHER = "meru or hycoclip"
FOUND = {**dict(zip(KINDS, KINDS, strict=True)), "meru": EITHER, "hycoclip": EITHER}
TOLERANCE = 2e-5


@functools.cache
def drawn(kind: str) -> dict:
    return peer_weights(kind, SMALL)


def tiny(kind: str, **changes) -> dict:
    return {**drawn(kind), **changes}


def published(weights: dict, kind: str | None = None, **options):
    return convert(weights, kind, sizes=(TINY,), **options)


def pixels(size: int, rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 3, size, size)


def tokens(length: int = 12, rows: int = 3) -> torch.Tensor:
    ids = torch.randint(1, 49406, (rows, length))
    ids[:, 0] = 49406
    for row in range(rows):
        ids[row, length - 1 - 2 * row :] = 0
        ids[row, length - 1 - 2 * row] = 49407
    return ids


@torch.no_grad()
def largest_difference(model: HypCLIP, weights: dict, kind: str, *, heads: int) -> tuple[float, float]:
    """Return how far images and texts lie from where the peer puts them."""
    images, texts = pixels(model.image_size), tokens()
    image = peer_lift(weights, kind, peer_image_features(weights, images, heads=heads), "visual")
    text = peer_lift(weights, kind, peer_text_features(weights, texts), "textual")
    assert image.std(0).min() > 1e-3  # rows differ by far more than the tolerance
    assert text.std(0).min() > 1e-3
    assert image.abs().max() < 10
    return (
        (model.encode_image(images) - image).abs().max().item(),
        (model.encode_text(texts) - text).abs().max().item(),
    )


# Embeddings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_the_peers(kind):
    weights = tiny(kind)
    result = published(weights)
    assert (result.kind, result.size, result.model.training) == (FOUND[kind], "tiny", False)
    assert max(largest_difference(result.model, weights, kind, heads=6)) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_peers(kind):
    weights = tiny(kind)
    model = published(weights).model
    with torch.no_grad():
        x, y = model.encode_image(pixels(32)), model.encode_text(tokens())
        ours = model.logit_scale * model.similarity(x, y)
        assert torch.allclose(ours, peer_logits(weights, kind, x, y), rtol=1e-4, atol=1e-3)


def test_the_comparison_would_notice_wrong_heads_epsilons_and_positions():
    weights, images = tiny("meru"), pixels(32)
    model = published(weights).model
    with torch.no_grad():
        ours = model.encode_image(images)

        def difference(state=weights, **options) -> float:
            features = peer_image_features(state, images, **{"heads": 6, **options})
            return (peer_lift(state, "meru", features, "visual") - ours).abs().max().item()

        assert difference() < TOLERANCE
        assert difference(heads=3) > 10 * TOLERANCE
        assert difference(eps=1e-6) > 10 * TOLERANCE
        table = weights["visual.pos_embed"]
        swapped = table[:, [0, 1, 3, 2, 4]]  # column-major patches
        assert difference({**weights, "visual.pos_embed": swapped}) > 10 * TOLERANCE


@pytest.mark.parametrize("change", [{"heads": 3}, {"text_heads": 4}])
def test_a_mapping_with_other_heads_would_not_have_passed(change):
    weights = tiny("meru")
    wrong = convert(weights, sizes=(replace(TINY, **change),)).model
    assert max(largest_difference(wrong, weights, "meru", heads=6)) > 10 * TOLERANCE


def test_a_mapping_with_another_epsilon_would_not_have_passed(monkeypatch):
    monkeypatch.setattr("hypclip.pretrained.published.conversion.LAYER_NORM_EPS", 1e-6)
    monkeypatch.setattr("hypclip.pretrained.published.conversion.require_structure", lambda *_: None)
    weights = tiny("meru")
    wrong = published(weights).model
    assert largest_difference(wrong, weights, "meru", heads=6)[0] > 10 * TOLERANCE


def test_the_structure_that_no_shape_shows_is_asserted():
    model = published(tiny("meru")).model
    require_structure(model, TINY)
    for change in ({"heads": 3}, {"text_heads": 4}, {"depth": 3}):
        with pytest.raises(AssertionError):
            require_structure(model, replace(TINY, **change))
    model.image_tower.trunk.blocks[1].norm1.eps = 1e-6
    with pytest.raises(AssertionError):
        require_structure(model, TINY)


# What is in the model -------------------------------------------------------------------------------------------------


def test_scalars_are_taken_as_they_are_even_outside_the_ranges_of_training():
    logs = {"curv": -3.5, "visual_alpha": 0.25, "textual_alpha": -0.5, "logit_scale": 5.0}
    model = published(tiny("meru", **{name: torch.tensor(value) for name, value in logs.items()})).model
    ours = [model.log_curv, model.log_image_scale, model.log_text_scale, model.log_logit_scale]
    assert [p.item() for p in ours] == list(logs.values())


def test_a_product_has_each_factors_scalars_and_the_logits_of_a_mean():
    weights = tiny("phyclip")
    model = published(weights).model
    assert (model.metric.geometry, model.metric.distance, model.metric.factor_dim) == ("product", "l1", 8)
    assert model.log_curv.tolist() == [weights[f"curvs.{i}"].item() for i in range(4)]
    assert model.log_image_scale.tolist() == [weights[f"visual_concept_alphas.{i}"].item() for i in range(4)]
    assert model.log_text_scale.tolist() == [weights[f"textual_concept_alphas.{i}"].item() for i in range(4)]
    torch.testing.assert_close(model.logit_scale * 4, weights["logit_scale"].exp())


def test_unchas_three_temperatures_have_the_names_of_its_recipe():
    names = {"global": "logit_scale", "local": "box_scale", "global_local": "box_whole_scale"}
    weights = tiny("uncha")
    scales = published(weights).model.scales
    assert scales == {ours: weights[f"{theirs}_logit_scale"].exp() for theirs, ours in names.items()}
    recipe = Objective.from_recipe("uncha").recipe
    assert scales.keys() == recipe.scales.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_published_models_keep_the_cones_of_meru(kind, tmp_path):
    model = published(tiny(kind)).model
    x = model.embed_text(["an animal", "a dog"])
    if kind == "clip":
        with pytest.raises(ConfigError, match="sphere"):
            model.entails(x, x)
        return
    checkpoint.save(model, tmp_path)
    written = "  entailment:\n    eta: 1.0\n    min_radius: 0.1\n    strict: true\n    form: cone\n"
    assert written in (tmp_path / "config.yaml").read_text()
    points = torch.randn(30, model.dim)
    near = model.metric.lift(points, torch.tensor(0.2), model.curv.detach())
    far = model.metric.lift(
        torch.cat([points, points + 0.5 * torch.randn_like(points)]), torch.tensor(0.6), model.curv.detach()
    )
    found = model.entails(near, far)
    assert found[:, :30].diagonal().all()
    assert found.equal(model.entails(near, far, Cone(eta=1.0, min_radius=0.1)))
    assert not found.equal(model.entails(near, far, Plane()))


def test_pixel_statistics_are_the_files():
    mean, std = (0.229, 0.224, 0.225), (0.3, 0.4, 0.5)
    weights = tiny("hycoclip", pixel_mean=torch.tensor(mean).view(3, 1, 1), pixel_std=torch.tensor(std).view(3, 1, 1))
    result = published(weights)
    assert result.has_swapped_pixel_mean
    assert not published(tiny("hycoclip")).has_swapped_pixel_mean
    grey = result.model.transform(Image.new("RGB", (32, 32), (51, 51, 51)))
    expected = (0.2 - weights["pixel_mean"]) / weights["pixel_std"]
    torch.testing.assert_close(grey, expected.expand(3, 32, 32), rtol=1e-6, atol=1e-6)


def test_positions_are_the_files_and_are_not_trained():
    weights = tiny("meru")
    trunk = published(weights).model.image_tower.trunk
    assert torch.equal(trunk.pos_embed, weights["visual.pos_embed"])
    assert not trunk.pos_embed.requires_grad


def test_half_precision_weights_become_single():
    weights = {k: v.half() if v.is_floating_point() else v for k, v in tiny("phyclip").items()}
    assert {v.dtype for v in published(weights).model.state_dict().values()} == {torch.float32}


# Kinds and keys -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_meru_and_hycoclip_are_told_apart_by_whoever_knows():
    weights = tiny("hycoclip")
    assert published(weights).notes == {"name": "meru_or_hycoclip_vit_tiny"}
    assert published(weights, beside="hycoclip").kind == "hycoclip"
    assert published(weights, beside="phyclip").kind == EITHER  # what the keys say stands
    told = published(weights, "meru", beside="hycoclip", step=7)
    assert told.notes == {"name": "meru_vit_tiny", "step": 7, "objective": {"base": "meru"}}


def test_a_kind_that_the_keys_contradict_is_refused():
    with pytest.raises(CheckpointError, match="its keys are those of uncha, not of meru"):
        published(tiny("uncha"), "meru")
    with pytest.raises(InputError, match="kind must be one of clip, meru, hycoclip, phyclip, uncha, got 'siglip'"):
        published(tiny("meru"), "siglip")


@pytest.mark.parametrize(
    ("kind", "unused"),
    [
        ("clip", {"textual.attn_mask"}),
        ("phyclip", {"curv", "visual_alpha", "textual_alpha"}),
        ("uncha", {"logit_scale", "textual.min_radius_head.0.weight", "textual.min_radius_head.0.bias"}),
    ],
)
def test_what_the_embeddings_do_not_need_may_be_missing(kind, unused):
    weights = tiny(kind)
    assert unused <= weights.keys()
    lean = {key: value for key, value in weights.items() if key not in unused}
    again, full = published(lean).model.state_dict(), published(weights).model.state_dict()
    assert again.keys() == full.keys()
    assert all(torch.equal(again[key], full[key]) for key in full)


def without(kind: str, *keys: str) -> dict:
    return {key: value for key, value in tiny(kind).items() if key not in keys}


NORM = "visual.blocks.1.norm2.bias"
WRONG = {
    "missing": (lambda: without("meru", NORM), rf"like {EITHER} with a ViT-TINY, but {NORM} is missing$"),
    "no curvature": (lambda: without("meru", "curv"), "curv is missing"),
    "no temperature": (lambda: without("uncha", "local_logit_scale"), "local_logit_scale is missing"),
    "no factor": (lambda: without("phyclip", "curvs.2"), "but curvs.2 is missing$"),
    "factors": (
        lambda: without("phyclip", *(f"{s}.3" for s in ("curvs", "visual_concept_alphas", "textual_concept_alphas"))),
        "are of 3 factors, which do not divide the embedding's 32 dimensions",
    ),
    "unknown": (lambda: tiny("clip", **{"visual.blocks.2.norm1.bias": torch.zeros(48)}), "blocks.2.norm1.bias is unkn"),
    "of another kind": (lambda: tiny("clip", **{"textual.min_radius_head.0.bias": torch.zeros(1)}), "curv is missing"),
    "two kinds": (lambda: {**tiny("uncha"), **tiny("phyclip")}, "global_local_logit_scale is unknown"),
    "shape": (lambda: tiny("meru", **{NORM: torch.zeros(47)}), rf"{NORM} has shape \(47,\), expected \(48,\)"),
    "scalar shape": (lambda: tiny("meru", curv=torch.zeros(1)), r"curv has shape \(1,\), expected \(\)"),
    "type": (lambda: tiny("meru", **{NORM: torch.zeros(48, dtype=torch.int32)}), f"{NORM} has type torch.int32"),
    "no numbers": (lambda: tiny("meru", **{NORM: torch.zeros(48, device="meta")}), f"{NORM} holds no numbers"),
    "sparse": (lambda: tiny("meru", **{NORM: torch.zeros(48).to_sparse()}), f"{NORM} holds no numbers"),
    "not finite": (lambda: tiny("meru", curv=torch.tensor(float("nan"))), "curv has numbers that are not finite"),
    "std": (lambda: tiny("clip", pixel_std=torch.zeros(3, 1, 1)), "model.image_std.0: .* greater than 0"),
    "other model": (lambda: {"fc.weight": torch.zeros(2, 2)}, "cls_token is missing: expected .* got 1 .* fc.weight"),
    "many": (lambda: without("meru", *[k for k in tiny("meru") if ".norm" in k]), "is missing; .*, and 7 more$"),
}


@pytest.mark.parametrize(("weights", "message"), WRONG.values(), ids=WRONG)
def test_every_key_is_accounted_for(weights, message):
    with pytest.raises(CheckpointError, match=message):
        published(weights())


def test_widths_of_none_of_the_sizes_are_refused():
    match = r"width 48, and the published image towers have 384 \(ViT-S\), 768 \(ViT-B\), 1024 \(ViT-L\)"
    with pytest.raises(CheckpointError, match=match):
        convert(tiny("meru"))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "shape"), list(zip(SIZES, (S, B, L), strict=True)), ids=["s", "b", "l"])
@pytest.mark.parametrize("kind", ["phyclip", "uncha"])
def test_the_three_sizes_are_recognised_and_their_towers_have_the_heads(size, shape, kind):
    weights = {key: torch.ones(()).expand(shape_) for key, shape_ in key_shapes(kind, shape).items()}
    architecture = recognise(weights)
    assert architecture == (kind, size, 64 if kind == "phyclip" else 1)
    with torch.device("meta"):
        model = HypCLIP(model_config(weights, architecture))
    require_structure(model, size)
    assert {block.attn.num_heads for block in model.image_tower.trunk.blocks} == {shape.heads}
    assert len(model.image_tower.trunk.blocks) == shape.depth
    assert {block.attn.num_heads for block in model.text_tower.transformer.resblocks} == {8}
    state = renamed(weights, architecture)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in model.state_dict().items()}


# Towers ---------------------------------------------------------------------------------------------------------------


def test_a_fresh_fixed_position_embedding_is_the_sin_cos_table():
    config = model_config(tiny("meru"), recognise(tiny("meru"), (replace(TINY, image_size=64),)))
    model = HypCLIP(config)
    table = model.image_tower.trunk.pos_embed[0]
    assert table.shape == (17, 48)
    assert not table.requires_grad
    assert not table[0].any()
    frequencies = 10000.0 ** (-torch.arange(12) / 12)
    for row, column in ((0, 0), (2, 3), (3, 1)):
        angles = [row * frequencies, column * frequencies]
        expected = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)])
        torch.testing.assert_close(table[1 + 4 * row + column], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"layer_norm_eps": 0}, "layer_norm_eps must be a number between 0 and 1, got 0"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps must be a number between 0 and 1, got '1e-5'"),
        ({"fixed_position": "yes"}, "fixed_position must be true or false, got 'yes'"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps needs timm_model_name"),
        ({"fixed_position": True}, "fixed_position needs a timm_model_name"),
    ],
)
def test_tower_keys_that_cannot_work_are_named(vision, message):
    towers = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16, **vision},
        "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 1},
    }
    with pytest.raises(ConfigError, match=message):
        HypCLIP(ModelConfig(towers))


def test_a_tower_without_a_table_of_positions_cannot_have_it_fixed():
    with pytest.raises(ConfigError, match="fixed_position needs"):
        fix_position(torch.nn.Linear(1, 1))
