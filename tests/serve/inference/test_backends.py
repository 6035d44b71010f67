import logging
import sys

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch._dynamo.utils import counters

from hypclip import HypCLIP, ModelConfig
from hypclip.errors import ConfigError, MissingExtraError
from hypclip.towers.tokens import TokenRows
from serve.inference import backends
from serve.inference.backends import load_backend

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
# The largest relative error of a row. Rounding of bfloat16 is 0.4 % an operation, of int8 1 %.
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.03, "int8": 0.2}


def tiny(towers=TOWERS, **config):
    torch.manual_seed(0)
    return HypCLIP(ModelConfig(towers, curv_init=0.5, **config)).eval()


def tokens(*lengths):
    ids = [torch.randint(1, 49000, (length,)) for length in lengths]
    for row in ids:
        row[0], row[-1] = 49406, 49407
    return TokenRows(torch.cat(ids), list(lengths))


def pictures(count, size=32):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def pillow(pixels):
    return [Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy())) for picture in pixels]


def worst(rows, expected):
    assert rows.dtype == torch.float32
    assert rows.shape == expected.shape
    return ((rows - expected).norm(dim=1) / expected.norm(dim=1)).max()


def assert_agrees(backend, model, precision):
    """Lengths, full one included, and numbers of rows that no backend was prepared with."""
    for lengths in ([5], [9] * 4, [76] * 3, [77], [77] * 5, [2] * 2, [77, 3, 40, *[5] * 20]):
        rows = tokens(*lengths)
        with torch.no_grad():
            assert worst(backend.text(rows), model.encode_text(rows.padded(0))) < TOLERANCE[precision]
    for rows in (1, 5, 3):
        pixels = pictures(rows)
        assert worst(backend.image(pixels), model.embed_image(pillow(pixels))) < TOLERANCE[precision]


@pytest.fixture(params=[0, 65], ids=["packed", "padded"])
def packs(monkeypatch, request):
    """Texts packed, or padded as those of a narrow tower."""
    monkeypatch.setattr(backends, "_WIDE", request.param)
    return request.param == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, precision", [("torch", "float32"), ("torch", "bfloat16"), ("onnx", "float32"), ("onnx", "int8")]
)
def test_a_backend_gives_the_embeddings_of_the_model(kind, precision, packs):
    model = tiny()
    backend = load_backend(model, kind, precision)
    assert backend.packs_texts is packs
    assert_agrees(backend, model, precision)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_compiled_model_gives_its_embeddings_and_compiles_no_more_once_loaded(monkeypatch, packs):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shapes that are checked would be compiled in
    torch._dynamo.reset()
    model = tiny()
    backend = load_backend(model, "compile")
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    assert_agrees(backend, model, "float32")
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
def test_quantisation_leaves_the_logs_of_the_server_alone(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    load_backend(tiny(), "onnx", "int8")
    assert logging.root.handlers == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_convolutions_and_towers_with_rows_of_one_length(kind):
    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    text = {**TOWERS["text_cfg"], "context_length": 16, "no_causal_mask": True, "pool_type": "last"}
    model = tiny({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    backend = load_backend(model, kind)
    texts, pixels = ["a dog", "two cats on a mat"], pictures(3)
    assert worst(backend.text(model.tokenizer.encode(texts)), model.embed_text(texts)) < 1e-5
    assert worst(backend.image(pixels), model.embed_image(pillow(pixels))) < 1e-5


@pytest.mark.parametrize(
    "geometry", [{"geometry": "sphere"}, {"geometry": "product", "distance": "l1", "factor_dim": 4}]
)
def test_features_go_where_the_model_puts_them(geometry):
    model = tiny(**geometry)
    backend = load_backend(model)
    pixels = pictures(2)
    torch.testing.assert_close(backend.text(model.tokenizer.encode(["a dog"])), model.embed_text(["a dog"]))
    torch.testing.assert_close(backend.image(pixels), model.embed_image(pillow(pixels)))


def test_pixels_are_normalised_to_the_bit_as_the_model_does():
    model = tiny(image_mean=[0.48, 0.45, 0.41], image_std=[0.27, 0.26, 0.28])
    seen = []
    model.image_tower.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    every_byte = torch.arange(3 * 32 * 32).remainder(256).to(torch.uint8).view(1, 3, 32, 32)
    pixels = torch.cat([every_byte, pictures(2)])
    load_backend(model).image(pixels)
    assert torch.equal(seen[0], torch.stack([model.transform(picture) for picture in pillow(pixels)]))


def test_dropout_is_off_in_a_model_that_was_training():
    model = tiny({**TOWERS, "vision_cfg": {**TOWERS["vision_cfg"], "patch_dropout": 0.5}})
    pixels = pictures(2)
    expected = model.embed_image(pillow(pixels))
    torch.testing.assert_close(load_backend(model.train()).image(pixels), expected)


def test_embeddings_may_be_written_to_and_differentiated_through():
    x = load_backend(tiny()).text(tokens(5, 5))
    (x * torch.ones(16, requires_grad=True)).sum().backward()
    x[0] = 0


@pytest.mark.parametrize(
    "kind, precision", [("torch", "int8"), ("compile", "int8"), ("onnx", "bfloat16"), ("tensorrt", "float32")]
)
def test_a_combination_that_does_not_exist_is_refused_by_its_settings(kind, precision):
    message = (
        f"HYPCLIP_BACKEND '{kind}' with HYPCLIP_PRECISION '{precision}' does not exist: use torch with float32 or "
        "bfloat16; compile with float32 or bfloat16; onnx with float32 or int8"
    )
    with pytest.raises(ConfigError, match=message):
        load_backend(tiny(), kind, precision)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_refused_by_the_extra_it_comes_with(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*pip install 'hypclip\[onnx\]'"):
        load_backend(tiny(), "onnx")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_auto_is_onnx_on_a_cpu(precision):
    model = tiny()
    ids = tokens(9, 9, 9)
    expected = load_backend(model, "onnx", precision).text(ids)
    assert torch.equal(load_backend(model, "auto", precision).text(ids), expected)
    assert not torch.equal(load_backend(model, "torch").text(ids), expected)


def test_auto_is_torch_where_onnx_is_missing_or_cannot(monkeypatch, caplog):
    model = tiny()
    ids = tokens(9, 9, 9)
    assert torch.equal(
        load_backend(model, "auto", "bfloat16").text(ids), load_backend(model, "torch", "bfloat16").text(ids)
    )
    assert not caplog.records
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert torch.equal(load_backend(model, "auto").text(ids), load_backend(model, "torch").text(ids))
    assert "hypclip[onnx]" in caplog.text
    with pytest.raises(MissingExtraError):
        load_backend(model, "auto", "int8")


class Undecided(nn.Module):
    """What it does depends on the tokens, which a graph cannot express."""

    def forward(self, ids):
        return ids[:, :16].float() if ids.sum() > 0 else ids[:, 1:17].float()


class Counting(nn.Module):
    """What it gives depends on more than its tokens."""

    calls = 0

    def forward(self, ids):
        self.calls += 1
        return ids[:, :1].float() * self.calls * torch.ones(16)


@pytest.mark.slow
@pytest.mark.parametrize("tower, reason", [(Undecided(), "data-dependent"), (Counting(), "are off by")])
def test_towers_that_onnx_cannot_express_are_refused(tower, reason):
    model = tiny()
    model.text_tower = tower
    with pytest.raises(ConfigError, match=f"HYPCLIP_BACKEND 'onnx' cannot run the towers of this model.*{reason}"):
        load_backend(model, "onnx")


def test_a_machine_without_a_compiler_is_refused(tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(tmp_path / "none"),))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="HYPCLIP_BACKEND 'compile' cannot run the towers of this model"):
        load_backend(tiny(), "compile")
