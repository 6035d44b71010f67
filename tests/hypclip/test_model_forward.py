"""The forward pass of the model, role by role, and the similarity it is trained with."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import hypclip
from hypclip.errors import InputError
from hypclip.geometry import lorentz, product
from hypclip.model import HypCLIP, ModelConfig
from hypclip.towers.passes import TextPasses
from tests.support.checks import is_fused
from tests.support.models import each_geometry, tiny_model
from tests.support.search import unchecked
from tests.support.training import ROLES, batch, tokens_of

# Forward --------------------------------------------------------------------------------------------------------------


def test_forward_embeds_every_role():
    model = tiny_model().eval()
    images, texts = batch()
    tokens = tokens_of(texts)
    output = model(images, texts)
    assert output.features.keys() == set(ROLES)
    for role in ROLES:
        alone = model.encode_image(images[role]) if "image" in role else model.encode_text(tokens[role])
        assert output.features[role].shape == (3, 16)
        torch.testing.assert_close(output.features[role], alone, rtol=0, atol=1e-5)
    assert output.curv is not None
    torch.testing.assert_close(output.curv, model.curv, rtol=0, atol=0)
    assert output.scales.keys() == {"logit_scale"}
    torch.testing.assert_close(output.scales["logit_scale"], model.logit_scale, rtol=0, atol=0)


def test_pictures_of_one_size_share_a_pass():
    model = tiny_model()
    seen = []
    model.image_tower.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[0]))
    model(*batch(roles=("image", "box_image", "text")))
    assert seen == [6]


def test_attention_is_explicit_where_it_is_asked_for():
    """In layers of torch.nn, which the text tower has, and in calls of the operator, as timm's towers make them."""

    class Attending(nn.Module):
        def forward(self, x):
            rows = x[:, :, :16, :16]
            return scaled_dot_product_attention(rows, rows, rows).mean((1, 2))

    model = tiny_model()
    model.image_tower = Attending()
    pixels, tokens = torch.randn(2, 3, 32, 32, requires_grad=True), model.tokenizer(["a dog", "a cat"])
    fused = model.encode_image(pixels), model.encode_text(tokens)
    model.use_explicit_attention()
    explicit = model.encode_image(pixels), model.encode_text(tokens)
    assert [is_fused(x) for x in (*fused, *explicit)] == [True, True, False, False]
    torch.testing.assert_close(explicit, fused, rtol=1e-5, atol=1e-6)


@each_geometry
def test_half_precision_towers_give_float32_points(space):
    model = tiny_model(**space)
    images, texts = batch()
    exact = model(images, texts).features
    with torch.autocast("cpu", torch.bfloat16):
        halved = model(images, texts).features
    for role in ROLES:
        assert halved[role].dtype == torch.float32
        torch.testing.assert_close(halved[role], exact[role], rtol=0, atol=0.1)
        assert not torch.equal(halved[role], exact[role])


def test_similarity_is_what_the_model_is_trained_with():
    x, y = torch.randn(3, 16), torch.randn(2, 16)
    model = tiny_model(curv_init=0.5)
    for i, j in ((0, 0), (2, 1)):
        a, b = x[i].double(), y[j].double()
        inner = a @ b - math.sqrt(2 + a @ a) * math.sqrt(2 + b @ b)
        expected = -math.acosh(-0.5 * inner) / math.sqrt(0.5)
        assert model.similarity(x, y)[i, j].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        tiny_model(geometry="sphere").similarity(x, y),
        torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1),
        rtol=0,
        atol=1e-6,
    )


def test_similarity_in_flat_space_and_in_a_product_is_minus_their_distance():
    x, y = torch.randn(3, 16), torch.randn(2, 16)
    for distance, power in (("geodesic", 1), ("squared", 2)):
        flat = tiny_model(geometry="euclidean", distance=distance)
        torch.testing.assert_close(flat.similarity(x, y), -(torch.cdist(x, y) ** power), rtol=1e-5, atol=1e-5)
    model = tiny_model(geometry="product", distance="l1", factor_dim=8)
    with torch.no_grad():
        model.log_curv.copy_(torch.tensor([0.2, 5.0]).log())
    apart = sum(lorentz.pairwise_dist(x[:, p], y[:, p], c) for p, c in ((slice(8), 0.2), (slice(8, None), 5.0)))
    torch.testing.assert_close(model.similarity(x, y), -apart, rtol=1e-5, atol=1e-5)
    mean, l2 = (tiny_model(geometry="product", distance=d, factor_dim=8, curv_init=0.2) for d in ("l1_mean", "l2"))
    torch.testing.assert_close(mean.similarity(x, y), -product.pairwise_dist(x, y, 0.2, 8, "l1_mean"))
    torch.testing.assert_close(l2.similarity(x, y), -product.pairwise_dist(x, y, 0.2, 8, "l2"))


def test_similarity_refuses_half_precision():
    with pytest.raises(InputError, match="float32 or float64"):
        tiny_model().similarity(torch.randn(2, 16).bfloat16(), torch.randn(2, 16).bfloat16())


def test_similarity_refuses_what_are_no_rows_of_the_model():
    model, x = tiny_model(), torch.zeros(2, 16)
    for wrong, came in (
        (x.numpy(), r"ndarray of shape \(2, 16\)"),
        (x[0], r"\(16,\)"),
        (x[:, :5], r"\(2, 5\)"),
        ([], "list"),
    ):
        with (
            unchecked(),
            pytest.raises(InputError, match=f"y must be a tensor \\(N, 16\\), as embed_text .*got .*{came}"),
        ):
            model.similarity(x, wrong)


def test_the_package_offers_the_model():
    assert hypclip.HypCLIP is HypCLIP
    assert hypclip.ModelConfig is ModelConfig
    assert tiny_model().model_id == "unsaved"


def test_one_string_in_place_of_a_list_is_refused():
    with pytest.raises(InputError, match="put it in a list"):
        tiny_model().embed_text("a dog")


def test_texts_of_two_roles_go_with_those_of_their_length():
    """Where that saves time; features and gradients are those of each role by itself."""
    model = tiny_model().train()
    long = "two dogs and a cat and a bird and a fish and a horse and a cow"
    texts = {"text": [*["a dog", "a cat", "one", "two"] * 3, long], "box_text": ["dog", "cat", "three", "four"]}
    alone = {role: model.encode_text(model.tokenizer(found)) for role, found in texts.items()}
    sum(x.square().sum() for x in alone.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.text_tower.named_parameters()}
    model.zero_grad()
    lengths = []
    model.text_tower.register_forward_hook(lambda _module, args, _output: lengths.append(tuple(args[0].shape)))
    rows = {role: model.tokenizer.encode(found) for role, found in texts.items()}
    together = model({}, TextPasses.plan(rows, model.tokenizer.pad_id, 10)).features
    assert [rows for rows, _ in lengths] == [16, 1]
    assert lengths[0][1] < lengths[1][1] == max(rows["text"].lengths)
    for role, x in alone.items():
        torch.testing.assert_close(together[role], x, rtol=1e-5, atol=1e-6)
    sum(x.square().sum() for x in together.values()).backward()
    for name, p in model.text_tower.named_parameters():
        assert (p.grad - gradients[name]).norm() <= 1e-5 * gradients[name].norm(), name
