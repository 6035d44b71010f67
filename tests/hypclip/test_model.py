"""The model: how it is built, its scalars, and what it embeds."""

import io
import math

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from hypclip.config import build
from hypclip.errors import ConfigError
from hypclip.model import HypCLIP, ModelConfig
from tests.support.models import TOWERS, each_geometry, tiny_model
from tests.support.training import batch

TEXTS = ["a red square", "a photograph of two dogs in the snow", "", "x"]


def pictures(count: int = 5) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for index in range(count):
        pixels = torch.randint(0, 256, (24 + 9 * index, 60 - 7 * index, 3), generator=generator, dtype=torch.uint8)
        made.append(Image.fromarray(pixels.numpy()))
    return made


# Building -------------------------------------------------------------------------------------------------------------


def test_towers_come_by_the_name_of_an_open_clip_config():
    model = HypCLIP(ModelConfig("ViT-S-32-alt")).eval()
    config = open_clip.get_model_config("ViT-S-32-alt")
    assert (model.dim, model.image_size) == (config["embed_dim"], 224) == (256, 224)
    assert model.tokenizer.context_length == 77
    text, image = model.embed_text(["a dog"]), model.embed_image([Image.new("RGB", (300, 200))])
    assert text.shape == image.shape == (1, 256)
    peer = open_clip.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    assert model.image_tower.state_dict().keys() == peer.visual.state_dict().keys()
    assert model.text_tower.state_dict().keys() == peer.text.state_dict().keys()


def test_towers_come_written_out():
    model = tiny_model()
    assert (model.dim, model.image_size, model.tokenizer.context_length) == (16, 32, 16)
    assert len(model.image_tower.transformer.resblocks) == len(model.text_tower.transformer.resblocks) == 2
    assert (
        sum(p.numel() for p in model.parameters())
        == sum(p.numel() for p in open_clip.CustomTextCLIP(**TOWERS).parameters()) + 3
    )  # open_clip's model has a logit scale; ours a curvature and two scales besides


def test_timm_towers_can_have_other_widths_than_their_name_says():
    vision = {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_kwargs": {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 32},
        "timm_pool": "token",
        "timm_proj": "linear",
        "image_size": 32,
    }
    model = tiny_model(towers={**TOWERS, "vision_cfg": vision})
    assert model.embed_image(pictures(2)).shape == (2, 16)
    assert model.image_tower.trunk.embed_dim == 24
    assert len(model.image_tower.trunk.blocks) == 1


def test_a_tower_config_is_left_as_it_was():
    towers = {**TOWERS, "custom_text": True}
    HypCLIP(ModelConfig(towers))
    assert towers == {**TOWERS, "custom_text": True}


def changed(part: str, **values) -> dict:
    return {**TOWERS, part: {**TOWERS[part], **values}}


@pytest.mark.parametrize(
    ("towers", "message"),
    [
        ("ViT-Z-99", "open_clip has no model config named 'ViT-Z-99'"),
        ({"embed_dim": 16}, r"needs embed_dim, vision_cfg and text_cfg .*got \['embed_dim'\]"),
        ({**TOWERS, "colour": 1}, "got .*'colour'"),
        ({**TOWERS, "vision_cfg": "ViT"}, "model.towers.vision_cfg must be a mapping of settings, got 'ViT'"),
        ({**TOWERS, "text_cfg": None}, "model.towers.text_cfg must be a mapping of settings, got None"),
        ({**TOWERS, "embed_dim": 0}, "model.towers.embed_dim must be a positive whole number, got 0"),
        ({**TOWERS, "embed_dim": "16"}, "model.towers.embed_dim must be a positive whole number, got '16'"),
        (changed("vision_cfg", layrs=3), "layrs"),
        (changed("text_cfg", layrs=3), "layrs"),
        (changed("text_cfg", heads=5), "divisible"),
        (changed("vision_cfg", image_size=[32, 48]), r"image_size must be square, got \[32, 48\]"),
        ({**TOWERS, "vision_cfg": {"timm_model_name": "no_such_net", "image_size": 32}}, "no_such_net"),
        (changed("vision_cfg", timm_model_kwargs={"depth": 1}), "timm_model_kwargs needs timm_model_name"),
    ],
)
def test_towers_that_cannot_be_built_are_named(towers, message):
    with pytest.raises(ConfigError, match=message):
        HypCLIP(ModelConfig(towers))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"geometry": "product", "distance": "l1", "factor_dim": 5}, "factor_dim 5 does not divide .* 16 dimensions"),
        ({"geometry": "product", "distance": "l1", "factor_dim": 32}, "factor_dim 32 does not divide .* 16 dimensions"),
        ({"geometry": "product", "distance": "l1"}, "got factor_dim None with geometry product"),
        ({"geometry": "product", "factor_dim": 4}, "distance must be one of l1, l1_mean, l2 for geometry product"),
        ({"factor_dim": 4}, "got factor_dim 4 with geometry lorentz"),
        ({"distance": "squared"}, "distance must be one of geodesic for geometry lorentz, got 'squared'"),
        ({"geometry": "sphere", "distance": "l2"}, "distance must be one of geodesic for geometry sphere, got 'l2'"),
    ],
)
def test_a_space_that_cannot_be_is_a_config_error(config, message):
    with pytest.raises(ConfigError, match=message):
        tiny_model(**config)
    with pytest.raises(ConfigError, match=message):
        HypCLIP(build(ModelConfig, {"towers": TOWERS, **config}, "model"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"geometry": "ball"}, "model.geometry"),
        ({"distance": "cosine"}, "model.distance"),
        ({"geometry": "product", "distance": "l1", "factor_dim": 0}, "model.factor_dim: .*greater than 0"),
        ({"geometry": "product", "distance": "l1", "factor_dim": "four"}, "model.factor_dim"),
        ({"other_scales": {"box_scale": 0.0}}, "model.other_scales.box_scale: .*greater than 0"),
        ({"other_scales": {"box_scale": float("nan")}}, "model.other_scales.box_scale"),
        ({"other_scales": [3.0]}, "model.other_scales"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(config, message):
    with pytest.raises(ConfigError, match=message):
        build(ModelConfig, {"towers": TOWERS, **config}, "model")


# Scalars --------------------------------------------------------------------------------------------------------------


def test_scalars_start_as_published():
    model = tiny_model()
    assert model.curv.item() == 1.0
    assert model.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert model.log_image_scale.exp().item() == pytest.approx(16**-0.5, rel=1e-6)
    assert model.log_text_scale.exp().item() == pytest.approx(16**-0.5, rel=1e-6)
    other = tiny_model(curv_init=0.3, logit_scale_init=20.0)
    assert other.curv.item() == pytest.approx(0.3, rel=1e-6)
    assert other.logit_scale.item() == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize(
    ("config", "frozen"),
    [
        ({}, set()),
        ({"learn_curv": False}, {"log_curv"}),
        ({"geometry": "sphere"}, {"log_curv", "log_image_scale", "log_text_scale"}),
        ({"geometry": "sphere", "learn_curv": False}, {"log_curv", "log_image_scale", "log_text_scale"}),
        ({"geometry": "euclidean"}, {"log_curv"}),
        ({"geometry": "euclidean", "distance": "squared"}, {"log_curv"}),
        ({"geometry": "product", "distance": "l1", "factor_dim": 4}, set()),
        ({"geometry": "product", "distance": "l2", "factor_dim": 4, "learn_curv": False}, {"log_curv"}),
        ({"other_scales": {"box_scale": 3.0, "box_whole_scale": 5.0}}, set()),
    ],
)
def test_scalars_that_play_no_part_are_frozen(config, frozen):
    model = tiny_model(**config)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen
    images, texts = batch()
    output = model(images, texts)
    total = sum(x.square().sum() + x.sum() for x in output.features.values())
    (total + output.curv.sum() + sum(output.scales.values())).backward()
    without_gradient = {name for name, p in model.named_parameters() if p.grad is None}
    assert without_gradient == frozen


def test_clamp_scalars_brings_each_back_into_its_range():
    model = tiny_model()
    with torch.no_grad():
        for scalar in (model.log_logit_scale, model.log_curv, model.log_image_scale, model.log_text_scale):
            scalar.fill_(9.0)
    model.clamp_scalars()
    assert model.logit_scale.item() == pytest.approx(100.0, rel=1e-6)
    assert model.curv.item() == pytest.approx(10.0, rel=1e-6)
    assert model.log_image_scale.item() == model.log_text_scale.item() == 0.0
    with torch.no_grad():
        for scalar in (model.log_logit_scale, model.log_curv, model.log_image_scale, model.log_text_scale):
            scalar.fill_(-9.0)
    model.clamp_scalars()
    assert model.curv.item() == pytest.approx(0.1, rel=1e-6)
    assert model.logit_scale.item() == pytest.approx(0.01, rel=1e-6)
    kept = (model.log_image_scale, model.log_text_scale)
    assert [scalar.item() for scalar in kept] == [-9.0] * 2


def test_a_product_has_a_curvature_and_scales_for_each_factor():
    model = tiny_model(geometry="product", distance="l1", factor_dim=2, curv_init=0.3)
    torch.testing.assert_close(model.curv, torch.full((8,), 0.3))
    for scale in (model.log_image_scale, model.log_text_scale):
        torch.testing.assert_close(scale.exp(), torch.full((8,), 2**-0.5))
    assert model.logit_scale.shape == ()
    for space in ("lorentz", "sphere", "euclidean"):
        single = tiny_model(geometry=space)
        assert single.curv.shape == single.log_image_scale.shape == single.log_text_scale.shape == ()


def test_the_scalars_of_a_product_are_clamped_one_by_one():
    model = tiny_model(geometry="product", distance="l1", factor_dim=8)
    with torch.no_grad():
        for scalars in (model.log_curv, model.log_image_scale, model.log_text_scale):
            scalars.copy_(torch.tensor([-9.0, 9.0]))
    model.clamp_scalars()
    torch.testing.assert_close(model.curv, torch.tensor([0.1, 10.0]))
    for scale in (model.log_image_scale, model.log_text_scale):
        assert scale.tolist() == [-9.0, 0.0]


def test_other_scales_start_as_set_and_are_learned_and_clamped():
    model = tiny_model(other_scales={"box_scale": 3.0, "box_whole_scale": 5.0}, logit_scale_init=20.0)
    assert {name: scale.item() for name, scale in model.scales.items()} == pytest.approx(
        {"logit_scale": 20.0, "box_scale": 3.0, "box_whole_scale": 5.0}, rel=1e-6
    )
    output = model(*batch())
    assert output.scales.keys() == model.scales.keys()
    (output.scales["box_scale"] + output.scales["logit_scale"]).backward()
    learned = {name: parameter.grad is not None for name, parameter in model.log_other_scales.items()}
    assert learned == {"box_scale": True, "box_whole_scale": False}
    with torch.no_grad():
        model.log_other_scales["box_scale"].fill_(9.0)
        model.log_other_scales["box_whole_scale"].fill_(-9.0)
    model.clamp_scalars()
    assert model.scales["box_scale"].item() == pytest.approx(100.0, rel=1e-6)
    assert model.scales["box_whole_scale"].item() == pytest.approx(0.01, rel=1e-6)
    assert tiny_model().scales.keys() == {"logit_scale"}


def test_forward_does_not_clamp():
    """Clamping is a step after the optimiser: a forward pass has no side effects."""
    model = tiny_model()
    with torch.no_grad():
        model.log_curv.fill_(4.0)
    output = model(*batch())
    assert model.log_curv.item() == 4.0
    assert output.curv.item() == pytest.approx(math.exp(4.0))


# Embedding ------------------------------------------------------------------------------------------------------------


def lifted(tangent: Tensor, curv: float) -> Tensor:
    """The exponential map at the origin, row by row in float64."""
    rows = []
    for v in tangent.double():
        z = math.sqrt(curv) * v.norm().item()
        rows.append(math.sinh(z) / z * v)
    return torch.stack(rows)


@pytest.mark.parametrize("curv", [0.2, 1.0, 5.0])
def test_embeddings_are_scaled_tower_features_lifted_onto_the_hyperboloid(curv):
    model = tiny_model(curv_init=curv).eval()
    with torch.no_grad():
        model.log_image_scale.fill_(-1.0)
        model.log_text_scale.fill_(-0.5)
        texts = model.text_tower(model.tokenizer(TEXTS))
        images = model.image_tower(torch.stack([model.transform(p) for p in pictures()]))
    for got, features, scale in (
        (model.embed_text(TEXTS), texts, math.exp(-0.5)),
        (model.embed_image(pictures()), images, math.exp(-1.0)),
    ):
        assert got.dtype == torch.float32
        assert got.device.type == "cpu"
        torch.testing.assert_close(got.double(), lifted(features * scale, curv), rtol=1e-5, atol=1e-6)
        # The radius of the point is the length of its tangent vector, by the time component too.
        time = (1 / curv + got.double().square().sum(-1)).sqrt()
        radius = torch.acosh(math.sqrt(curv) * time) / math.sqrt(curv)
        torch.testing.assert_close(radius, (features * scale).norm(dim=-1).double(), rtol=1e-5, atol=1e-6)


def test_embeddings_on_the_sphere_have_length_one():
    model = tiny_model(geometry="sphere")
    for x in (model.embed_text(TEXTS), model.embed_image(pictures())):
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(len(x)), rtol=0, atol=1e-6)


def test_embeddings_in_flat_space_are_scaled_tower_features():
    model = tiny_model(geometry="euclidean").eval()
    with torch.no_grad():
        model.log_image_scale.fill_(-1.0)
        features = model.image_tower(torch.stack([model.transform(p) for p in pictures()]))
    torch.testing.assert_close(model.embed_image(pictures()), features * math.exp(-1.0), rtol=0, atol=1e-6)


def test_embeddings_in_a_product_are_lifted_factor_by_factor():
    model = tiny_model(geometry="product", distance="l1", factor_dim=8).eval()
    with torch.no_grad():
        model.log_curv.copy_(torch.tensor([0.2, 5.0]).log())
        model.log_text_scale.copy_(torch.tensor([-0.5, -1.5]))
        features = model.text_tower(model.tokenizer(TEXTS))
    got = model.embed_text(TEXTS)
    for part, curv, scale in ((slice(8), 0.2, math.exp(-0.5)), (slice(8, None), 5.0, math.exp(-1.5))):
        torch.testing.assert_close(got[:, part].double(), lifted(features[:, part] * scale, curv), rtol=1e-5, atol=1e-6)


@each_geometry
def test_every_space_embeds_and_compares(space):
    model = tiny_model(**space)
    texts, images = model.embed_text(TEXTS), model.embed_image(pictures())
    assert (texts.shape, images.shape) == ((4, 16), (5, 16))
    similarity = model.similarity(texts, images)
    assert similarity.shape == (4, 5)
    assert similarity.isfinite().all()
    assert not similarity.requires_grad
    assert torch.equal(model.similarity(texts, texts).argmax(-1), torch.arange(4))
    torch.testing.assert_close(model.similarity(images, texts), similarity.T, rtol=0, atol=1e-5)


@each_geometry
def test_every_space_is_learned_from_texts_and_images(space):
    model = tiny_model(**space)
    output = model(*batch())
    assert all(x.shape == (3, 16) for x in output.features.values())
    curv = output.curv
    pairs = -model.metric.pairwise_similarity(output.features["image"], output.features["text"], curv)
    (pairs.sum() * output.scales["logit_scale"]).backward()
    learned = [p for p in (model.log_curv, model.log_image_scale, model.log_text_scale) if p.requires_grad]
    assert all(p.grad.isfinite().all() and (p.grad != 0).all() for p in (*learned, model.log_logit_scale))
    assert model.image_tower.conv1.weight.grad.norm() > 0


@each_geometry
def test_nothing_to_embed_is_no_rows(space):
    model = tiny_model(**space)
    assert model.embed_text([]).shape == model.embed_image([]).shape == (0, 16)


def test_embeddings_do_not_depend_on_their_batch():
    model = tiny_model()
    for embed, items in ((model.embed_text, TEXTS), (model.embed_image, pictures())):
        together = embed(items)
        assert len(together) == len(items)
        for batch_size in (1, 2, 3):
            torch.testing.assert_close(embed(items, batch_size=batch_size), together, rtol=0, atol=1e-5)
        assert (together[0] - together[1]).abs().max() > 1e-2


def test_pictures_of_any_mode_are_embedded_as_they_look():
    model = tiny_model()
    picture = pictures(1)[0]
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 3
    picture.rotate(180).save(buffer, "PNG", exif=exif)
    see_through = picture.convert("RGBA")
    blank = Image.new("LA", (40, 40), (0, 0))
    same = model.embed_image([picture, Image.open(buffer), see_through])
    torch.testing.assert_close(same[1:], same[:1].expand(2, -1), rtol=0, atol=1e-5)
    white = model.embed_image([blank, Image.new("RGB", (40, 40), "white")])
    torch.testing.assert_close(white[0], white[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_embedding_leaves_the_training_mode_as_it_was(training):
    model = tiny_model(towers=changed("vision_cfg", patch_dropout=0.5)).train(training)
    model.text_tower.eval()
    modes = [module.training for module in model.modules()]
    first = model.embed_image(pictures())
    torch.testing.assert_close(model.embed_image(pictures()), first, rtol=0, atol=0)
    model.embed_text(TEXTS)
    assert [module.training for module in model.modules()] == modes
    buffer = io.BytesIO()
    pictures(1)[0].save(buffer, "PNG")
    cut_off = Image.open(io.BytesIO(buffer.getvalue()[:200]))
    with pytest.raises(OSError, match="truncated"):
        model.embed_image([cut_off])
    assert [module.training for module in model.modules()] == modes


def test_embedding_builds_no_graph():
    model = tiny_model()
    assert not model.embed_text(TEXTS).requires_grad
    assert not model.embed_image(pictures()).requires_grad
