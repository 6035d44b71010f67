from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    SiglipConfig,
    SiglipModel,
)

from hypclip.errors import CheckpointError, ConfigError
from hypclip.model import HypCLIP
from hypclip.pretrained.clip_sources import PretrainedClip, with_text_model
from hypclip.pretrained.warm_start import calibrate_scales, load_towers, read_clip
from hypclip.training.tuning import LoraSettings, TuneConfig, apply, keep_locked_in_eval
from tests.support.clip_directories import SHAPE, clip_directory, tokenizer_directory
from tests.support.models import TOWERS, tiny_model

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def flat_clip(seed: int = 0) -> open_clip.CustomTextCLIP:
    torch.manual_seed(seed)
    return open_clip.CustomTextCLIP(**TOWERS)


@pytest.fixture
def file(tmp_path) -> Path:
    torch.save(flat_clip().state_dict(), tmp_path / "flat.pt")
    return tmp_path / "flat.pt"


def started(flat: PretrainedClip, embed_dim: int | None = None, **settings) -> HypCLIP:
    torch.manual_seed(1)
    model = HypCLIP(flat.model_config(embed_dim, **settings)).eval()
    load_towers(model, flat)
    return model


@torch.no_grad()
def tangent_length(model: HypCLIP, texts: list[str]) -> float:
    features = model.text_tower(model.tokenizer(texts)).norm(dim=-1).mean()
    return float(features * model.log_text_scale.exp())


# open_clip ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "module", "text at the root", "safetensors"])
@torch.no_grad()
def test_a_checkpoint_file_gives_its_features(tmp_path, layout):
    clip = flat_clip()
    state, path = clip.state_dict(), tmp_path / "flat.bin"
    match layout:
        case "plain":
            torch.save({"epoch": 3, "name": "x", "state_dict": state}, path)
        case "module":
            torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
        case "text at the root":
            torch.save({k.removeprefix("text."): v for k, v in state.items()}, path)
        case "safetensors":
            path = tmp_path / "flat.safetensors"
            save_file(state, path)
    model = started(read_clip(path, TOWERS))
    tokens = model.tokenizer(["a dog", "two cats on a mat"])
    assert torch.equal(model.eval().image_tower(PIXELS), clip.eval().visual(PIXELS))
    padded = torch.nn.functional.pad(tokens, (0, 16 - tokens.shape[1]))
    torch.testing.assert_close(model.text_tower(tokens), clip.text(padded), rtol=0, atol=1e-5)


def test_a_tag_goes_through_open_clips_download(tmp_path, monkeypatch):
    """The download is faked where open_clip reaches for the hub; its table of tags and file names is the real one."""
    config = {**TOWERS, "custom_text": True, "init_logit_bias": -10, "quick_gelu": False}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", config)
    clip, asked = flat_clip(), []

    def download(repo_id, filename, **_):
        asked.append((repo_id, filename))
        if filename.endswith(".safetensors"):
            raise FileNotFoundError(filename)
        torch.save(clip.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
        return str(tmp_path / "open_clip_pytorch_model.bin")

    monkeypatch.setattr("open_clip.pretrained.hf_hub_download", download)
    flat = read_clip("ViT-B-32/laion2b_s34b_b79k")
    assert asked[-1] == ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_pytorch_model.bin")
    assert flat.image_mean == open_clip.OPENAI_DATASET_MEAN
    assert flat.log_logit_scale == pytest.approx(clip.logit_scale.item())
    model = started(flat)
    assert torch.equal(model.image_tower.proj, clip.visual.proj)
    assert torch.equal(model.text_tower.text_projection, clip.text.text_projection)
    assert read_clip("ViT-B-32/openai").towers["quick_gelu"], "these weights were trained with QuickGELU"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.pt", "cannot start from 'nowhere.pt': expected an open_clip model and tag"),
        ("ViT-Z/openai", "cannot start from 'ViT-Z/openai'"),
        ("ViT-B-32/laion9b", "open_clip has no weights 'laion9b' of ViT-B-32; it has openai, laion400m_e31"),
    ],
)
def test_unknown_sources_are_named(source, message):
    with pytest.raises(ConfigError, match=message):
        read_clip(source)


def test_a_failed_download_is_named(monkeypatch):
    def download(**_):
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.pretrained.hf_hub_download", download)
    with pytest.raises(CheckpointError, match=r"cannot download ViT-B-32/laion2b_s34b_b79k: .*no route to host"):
        read_clip("ViT-B-32/laion2b_s34b_b79k")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_a_file_never_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pt")
    with pytest.raises(CheckpointError, match=r"cannot read evil.pt as weights of open_clip"):
        read_clip("evil.pt", TOWERS)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "holds no state_dict"),
        ({"epoch": 3}, "holds no state_dict"),
        ([1], "holds no state_dict"),
        ({"logit_scale": torch.ones(()), "decoder.weight": torch.ones(2)}, "decoder.weight is neither of an image tow"),
    ],
)
def test_files_of_something_else_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        read_clip(tmp_path / "x.pt", TOWERS)


def test_towers_belong_to_a_file_and_only_there(file, tmp_path):
    with pytest.raises(ConfigError, match=r"flat.pt does not say what its towers are: give towers"):
        read_clip(file)
    with pytest.raises(ConfigError, match="give towers for a checkpoint file only"):
        read_clip(tmp_path, TOWERS)
    with pytest.raises(ConfigError, match="is a CoCa model"):
        read_clip(file, "coca_ViT-B-32")


# Fitting --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vision_cfg", {"layers": 3}, "model.towers.vision_cfg.layers is 3 and that of .*flat.pt is 2"),
        ("vision_cfg", {"head_width": 8}, "vision_cfg.head_width is 8"),
        ("text_cfg", {"heads": 4}, "text_cfg.heads is 4"),
        ("text_cfg", {"pool_type": "last"}, "text_cfg.pool_type is 'last'"),
    ],
)
def test_other_towers_than_the_sources_are_named(file, part, change, message):
    """The first of these shows in a tensor, the others in none."""
    model = tiny_model(towers={**TOWERS, part: {**TOWERS[part], **change}})
    with pytest.raises(ConfigError, match=message):
        load_towers(model, read_clip(file, TOWERS))


def test_dropped_patches_are_no_other_tower(file):
    model = tiny_model(towers={**TOWERS, "vision_cfg": {**TOWERS["vision_cfg"], "patch_dropout": 0.5}})
    assert load_towers(model, read_clip(file, TOWERS)) == []


def test_weights_of_other_towers_leave_the_model_as_it_was(file):
    state = torch.load(file, weights_only=True)
    state["visual.extra"] = torch.ones(1)
    state["visual.conv1.weight"] = state["visual.conv1.weight"][:8]
    del state["text.ln_final.bias"], state["visual.proj"]
    torch.save(state, file)
    model = tiny_model()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(
        CheckpointError,
        match=r"proj is missing; image_tower.extra is not in this model; .*conv1.weight has shape \(8,",
    ):
        load_towers(model, read_clip(file, TOWERS))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    state["visual.proj"] = torch.ones(32, 16)
    state["visual.conv1.weight"] = torch.ones(32, 3, 16, 16)
    del state["visual.extra"]
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r"holds other towers than this model: text_tower.ln_final.bias is"):
        load_towers(model, read_clip(file, TOWERS))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_another_embed_dim_has_a_new_projection(file):
    flat = read_clip(file, TOWERS)
    model = HypCLIP(flat.model_config(8))
    before = model.image_tower.proj.clone()
    assert load_towers(model, flat) == ["image_tower.proj", "text_tower.text_projection"]
    assert torch.equal(model.image_tower.proj, before)
    assert torch.equal(model.image_tower.conv1.weight, flat.image["conv1.weight"])


def test_the_curvature_stays_the_configs_and_the_logit_scale_too_unless_asked(file):
    state = torch.load(file, weights_only=True)
    state["logit_scale"] = torch.tensor([9.0])
    torch.save(state, file)
    flat = read_clip(file, TOWERS)
    model = tiny_model(curv_init=0.3, logit_scale_init=5.0)
    load_towers(model, flat)
    assert (model.curv.item(), model.logit_scale.item()) == (pytest.approx(0.3), pytest.approx(5.0))
    load_towers(model, flat, keep_logit_scale=True)
    assert model.logit_scale.item() == pytest.approx(100.0), "the end of its range"
    del state["logit_scale"]
    torch.save(state, file)
    with pytest.raises(ConfigError, match="has no logit_scale to keep"):
        load_towers(model, read_clip(file, TOWERS), keep_logit_scale=True)


# Scales ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [{}, {"geometry": "product", "distance": "l1", "factor_dim": 4}])
def test_tangent_vectors_have_the_length_of_a_fresh_models(file, space):
    flat = read_clip(file, TOWERS)
    flat.text["text_projection"] = flat.text["text_projection"] * 50
    model = tiny_model(**space).train()
    load_towers(model, flat)
    assert model.text_tower.training
    with torch.no_grad():
        features = model.text_tower(model.tokenizer(["a dog", "a photo of a car in the rain"]))
        parts = features.unflatten(-1, (-1, 4 if space else 16))
    lengths = parts.norm(dim=-1).mean(0) * model.log_text_scale.exp()
    assert lengths.numel() == model.log_text_scale.numel()
    assert 0.6 < lengths.mean() < 1.6
    assert model.log_image_scale.max() <= 0


def test_scales_can_stay_and_can_be_measured_on_ones_own_data(file):
    model = tiny_model()
    before = model.log_text_scale.clone()
    load_towers(model, read_clip(file, TOWERS), calibrate=False)
    assert torch.equal(model.log_text_scale, before)
    texts = ["a red square", "a blue square", "green"]
    calibrate_scales(model, PIXELS * 3, model.tokenizer(texts))
    expected = model.eval().image_tower(PIXELS * 3).norm(dim=-1).mean().reciprocal().clamp(max=1)
    torch.testing.assert_close(model.log_image_scale.exp(), expected)
    torch.nn.init.zeros_(model.text_tower.text_projection)
    with pytest.raises(CheckpointError, match="TextTransformer gives features of length 0"):
        calibrate_scales(model)


# transformers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "eps", "eos"), [("quick_gelu", 1e-5, 49407), ("gelu", 1e-6, 2), ("gelu_pytorch_tanh", 1e-5, 300)]
)
@torch.no_grad()
def test_a_clip_directory_gives_its_features(tmp_path, act, eps, eos):
    settings = {"hidden_act": act, "layer_norm_eps": eps}
    theirs = clip_directory(tmp_path, vision=settings, text={**settings, "eos_token_id": eos})
    flat = read_clip(tmp_path)
    model = started(flat)
    assert flat.image_mean == (0.1, 0.2, 0.3)
    assert list(model.config.image_std) == [0.4, 0.5, 0.6]
    tokens = torch.randint(1, 299, (4, 16))
    for row, end in enumerate((3, 7, 15, 9)):
        tokens[row, end] = 300 if eos == 300 else 49407
    image = theirs.get_image_features(PIXELS).pooler_output
    text = theirs.get_text_features(tokens).pooler_output
    torch.testing.assert_close(model.image_tower(PIXELS), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.text_tower(tokens), text, rtol=0, atol=1e-5)
    assert flat.log_logit_scale == pytest.approx(theirs.logit_scale.item())


def test_pixel_statistics_of_another_source_are_named(tmp_path):
    clip_directory(tmp_path)
    flat = read_clip(tmp_path)
    model = HypCLIP(flat.model_config(image_mean=[0.5, 0.5, 0.5]))
    with pytest.raises(ConfigError, match=r"model.image_mean is \[0.5, 0.5, 0.5\] and .* was trained with \[0.1, 0.2"):
        load_towers(model, flat)


def test_clip_directories_that_cannot_be_held_are_named(tmp_path):
    clip_directory(tmp_path / "a", text={"hidden_act": "gelu"})
    with pytest.raises(ConfigError, match=r"hidden_act must be .*the same in both, got \['gelu', 'quick_gelu'\]"):
        read_clip(tmp_path / "a")
    clip_directory(tmp_path / "b")
    state = load_file(tmp_path / "b" / "model.safetensors")
    extra = {**state, "adapter.weight": torch.ones(2)}
    save_file(extra, tmp_path / "b" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not hold the model of its config: adapter.weight is not of the mod"):
        read_clip(tmp_path / "b")
    state.pop("visual_projection.weight")
    save_file(state, tmp_path / "b" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"visual_projection.weight is missing"):
        read_clip(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="transformers cannot read"):
        read_clip(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(ConfigError, match="holds a model of type 'blip'"):
        read_clip(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*config.json"):
        read_clip(tmp_path / "b")


@torch.no_grad()
def test_a_siglip_directory_gives_its_features(tmp_path):
    torch.manual_seed(0)
    special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = SiglipConfig(
        vision_config={**SHAPE, "image_size": 32, "patch_size": 8},
        text_config={**SHAPE, "max_position_embeddings": 16, "vocab_size": 30, **special},
    )
    theirs = SiglipModel(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer_directory(tmp_path, 30)
    flat = read_clip(tmp_path)
    model = started(flat)
    image = theirs.get_image_features(PIXELS).pooler_output
    torch.testing.assert_close(model.image_tower(PIXELS), image, rtol=0, atol=1e-5)
    tokens = model.tokenizer(["a b c", "z"])
    assert tokens.shape == (2, 16)
    text = theirs.get_text_features(tokens).pooler_output
    torch.testing.assert_close(model.text_tower(tokens), text, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="embed_dim must be 64, the width"):
        HypCLIP(flat.model_config(32))


@torch.no_grad()
def test_a_text_model_takes_the_place_of_the_text_tower(file, tmp_path):
    folder = tmp_path / "bert"
    torch.manual_seed(3)
    bert = BertModel(BertConfig(**SHAPE, vocab_size=30, max_position_embeddings=24)).eval()
    bert.save_pretrained(folder)
    tokenizer_directory(folder, 30)
    flat = with_text_model(read_clip(file, TOWERS), folder)
    model = HypCLIP(flat.model_config()).eval()
    assert load_towers(model, flat) == ["text_tower.proj.weight"]
    tokens = model.tokenizer(["a b c", "z"])
    mask = (tokens != 0).long()
    hidden = bert(input_ids=tokens, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
    mean = hidden.sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(model.text_tower(tokens), model.text_tower.proj(mean), rtol=0, atol=1e-5)
    assert torch.equal(model.image_tower.conv1.weight, flat.image["conv1.weight"])
    assert tangent_length(model, ["a b", "c d e"]) == pytest.approx(1, abs=0.6)
    plain = model.text_tower(tokens)
    apply(model, TuneConfig(lora=LoraSettings(rank=4, image_blocks=1, text_blocks=1)))
    assert {n for n, p in model.text_tower.named_parameters() if p.requires_grad} == {
        "proj.weight",
        *(
            f"transformer.encoder.layer.1.attention.{layer}.parametrizations.weight.0.{side}"
            for layer in ("self.query", "self.key", "self.value", "output.dense")
            for side in ("up", "down")
        ),
    }
    assert torch.equal(model.text_tower(tokens), plain)
    model.train()
    keep_locked_in_eval(model)
    layers = model.text_tower.transformer.encoder.layer
    assert [layer.attention.self.dropout.training for layer in layers] == [False, True]
    assert not model.text_tower.transformer.embeddings.dropout.training
    clip_directory(tmp_path / "clip")
    with pytest.raises(ConfigError, match="text model of type 'clip'; open_clip has towers for bert"):
        with_text_model(flat, tmp_path / "clip")
