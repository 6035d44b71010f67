"""hypclip.export.huggingface: AutoModel and AutoProcessor give back the model, bit for bit; and train/export.py."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.utils import ModelOutput

from hypclip import checkpoint
from hypclip.client.rgb import to_rgb
from hypclip.errors import CheckpointError, ConfigError, InputError
from hypclip.export.huggingface import HypCLIPConfig, HypCLIPForHub, HypCLIPProcessor, export_huggingface
from hypclip.geometry.entailment import Cone, Plane
from tests.support.environment import environment
from tests.support.models import TOWERS, tiny_model
from tests.support.training import ROOT
from train.export import main

TEXTS = ["a dog", "", "a red dog and a <end_of_text> cat", "dog " * 40]
SPACES = {
    "lorentz": {"curv_init": 0.7, "image_mean": [0.1, 0.2, 0.3]},
    "product": {"geometry": "product", "distance": "l1_mean", "factor_dim": 4},
    "euclidean": {"geometry": "euclidean", "distance": "squared"},
    "sphere": {"geometry": "sphere", "other_scales": {"box_scale": 3.0}},
}
RESNET = {**TOWERS, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}}
TIMM = {
    "image_size": 32,
    "timm_model_name": "vit_tiny_patch16_224",
    "timm_model_kwargs": {"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 16, "img_size": 32},
    "timm_pool": "avg",
    "timm_proj": "linear",
}


def pictures() -> list[Image.Image]:
    noise = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8).numpy()
    palette = Image.new("P", (9, 60), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    return [Image.fromarray(noise), Image.new("RGBA", (33, 20), (255, 0, 0, 90)), palette, Image.new("L", (32, 32), 77)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_huggingface(tiny_model(**SPACES["lorentz"]), tmp_path / "hub")
    return tmp_path / "hub"


# Round trip -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [*SPACES.values(), {"towers": RESNET}, {"towers": {**TOWERS, "vision_cfg": TIMM}}],
    ids=[*SPACES, "resnet", "timm"],
)
@torch.no_grad()
def test_the_auto_classes_give_back_the_model(tmp_path: Path, changes: dict) -> None:
    model = tiny_model(**changes).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("log_"):
            parameter.add_(torch.rand_like(parameter))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_huggingface(model, tmp_path / "hub")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    again, processor = AutoModel.from_pretrained(tmp_path / "hub"), AutoProcessor.from_pretrained(tmp_path / "hub")
    assert type(again) is HypCLIPForHub
    assert type(processor) is HypCLIPProcessor
    assert not again.training
    assert again.hypclip.config == model.config
    assert again.hypclip.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.hypclip.state_dict().items())
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in again.hypclip.named_parameters() if parameter.requires_grad} == learned

    images = pictures()
    inputs = processor(text=TEXTS, images=images, return_tensors="pt")
    assert list(inputs) == processor.model_input_names == ["input_ids", "pixel_values"]
    assert torch.equal(inputs["input_ids"], model.tokenizer(TEXTS))
    assert torch.equal(inputs["pixel_values"], torch.stack([model.transform(to_rgb(image)) for image in images]))
    text, image = model.embed_text(TEXTS), model.embed_image(images)
    assert torch.equal(again.get_text_features(inputs["input_ids"]), text)
    assert torch.equal(again.get_image_features(inputs["pixel_values"]), image)
    output = again(**inputs)
    assert isinstance(output, ModelOutput)
    assert output.loss is None
    assert torch.equal(output.text_embeds, text)
    assert torch.equal(output.image_embeds, image)
    assert torch.equal(output.logits_per_image, model.similarity(image, text) * model.logit_scale)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)


def test_a_model_that_was_trained_on_is_saved_and_loaded_again(folder: Path, tmp_path: Path) -> None:
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    model.train()
    inputs = processor(text=["a dog", "x"], images=pictures()[:2])
    model(**inputs).logits_per_text.diagonal().sum().backward()
    assert model.hypclip.log_curv.grad.abs() > 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    model.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    assert again.hypclip.embed_text(TEXTS).equal(model.hypclip.embed_text(TEXTS))
    assert not again.hypclip.embed_text(TEXTS).equal(AutoModel.from_pretrained(folder).hypclip.embed_text(TEXTS))
    assert AutoProcessor.from_pretrained(tmp_path / "again")(text=TEXTS)["input_ids"].equal(
        processor(text=TEXTS)["input_ids"]
    )


def test_the_directory_holds_data_only(folder: Path) -> None:
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer_config.json",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "hypclip"
    assert config["architectures"] == ["HypCLIPForHub"]
    assert config["model"]["towers"] == TOWERS
    assert config["model"]["image_mean"] == [0.1, 0.2, 0.3]
    assert config["dtype"] == "float32"
    assert "auto_map" not in config
    assert type(AutoConfig.from_pretrained(folder)) is HypCLIPConfig


RULES = {
    "cone": ({"form": "cone", "eta": 1.2, "min_radius": 0.3}, Cone(eta=1.2, min_radius=0.3)),
    "plane": ({"form": "plane", "threshold": -0.1}, Plane(threshold=-0.1)),
    "meru": (None, Cone()),
}


@pytest.mark.parametrize("space", ["lorentz", "product", "euclidean"])
@pytest.mark.parametrize("rule", RULES)
def test_what_entails_what_goes_along(tmp_path: Path, space: str, rule: str) -> None:
    given, expected = RULES[rule]
    model = tiny_model(**SPACES[space], **({} if given is None else {"entailment": given})).eval()
    export_huggingface(model, tmp_path / "hub")
    written = json.loads((tmp_path / "hub" / "config.json").read_text())["model"]["entailment"]
    assert written == asdict(expected)
    again = AutoModel.from_pretrained(tmp_path / "hub")
    general = torch.randn(20, model.dim) / 4
    specific = torch.cat([general, 3 * general, torch.randn(30, model.dim)])
    found = again.entails(general, specific)
    assert found.equal(model.entails(general, specific, expected))
    assert 0 < found.sum() < found.numel()
    assert not found[:, :20].diagonal().any()
    wide = again.entails(general, specific, Plane(-1.0))
    assert wide.equal(model.entails(general, specific, Plane(-1.0)))
    assert not wide.equal(found)


def test_a_directory_of_before_entails_by_the_cones_of_meru(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["model"]["entailment"]
    (folder / "config.json").write_text(json.dumps(config))
    with caplog.at_level("WARNING", "hypclip"):
        for _ in range(2):
            assert AutoModel.from_pretrained(pretrained_model_name_or_path=folder).hypclip.config.entailment == Cone()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("hypclip")] == [
        f"{folder} does not say what entails what: it is taken to be by the cones of MERU, eta 1 and min_radius 0.1"
    ]


def test_on_the_sphere_nothing_entails_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    export_huggingface(tiny_model(**SPACES["sphere"]), tmp_path / "hub")
    model = AutoModel.from_pretrained(tmp_path / "hub")
    with pytest.raises(ConfigError, match="sphere"):
        model.entails(torch.eye(2, model.hypclip.dim), torch.eye(2, model.hypclip.dim))
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    del config["model"]["entailment"]
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    with caplog.at_level("WARNING", "hypclip"):
        AutoModel.from_pretrained(tmp_path / "hub")
    assert "entails" not in caplog.text  # nothing is assumed where there is nothing to say


def test_a_rule_that_is_none_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["entailment"] = {"form": "ball", "threshold": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"model\.entailment.*'ball'.*'cone', 'plane'"):
        AutoModel.from_pretrained(folder)


def test_half_precision_leaves_the_space_exact(folder: Path) -> None:
    model, half = AutoModel.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.hypclip.image_tower.conv1.weight.dtype == torch.bfloat16
    assert half.hypclip.curv.equal(model.hypclip.curv)
    inputs = AutoProcessor.from_pretrained(folder)(text=TEXTS, images=pictures())
    with torch.no_grad():
        for got, wanted in zip(half(**inputs, return_dict=False), model(**inputs, return_dict=False), strict=True):
            assert got.dtype == torch.float32
            assert 0 < (got - wanted).norm() < 0.05 * wanted.norm()


def test_arrays_and_single_inputs(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    (image,) = pictures()[:1]
    arrays = processor(text="a dog", images=image, return_tensors="np")
    tensors = processor(text=["a dog"], images=[image])
    for name in ("input_ids", "pixel_values"):
        assert torch.equal(torch.from_numpy(arrays[name]), tensors[name])
    assert processor(images=[])["pixel_values"].shape == (0, 3, 32, 32)


# Refusals -------------------------------------------------------------------------------------------------------------


def test_half_a_pair_is_refused(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    with pytest.raises(InputError, match=r"got no pixel_values.*get_text_features\(input_ids\)"):
        model(input_ids=torch.ones(1, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="got no input_ids"):
        model(pixel_values=torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"needs text=\[...\] or images=\[...\], got neither"),
        ({"text": [1]}, "text must be str objects, got int"),
        ({"images": ["a.png"]}, "images must be Image objects, got str"),
        ({"text": ["a"], "return_tensors": "tf"}, "return_tensors must be 'pt' or 'np', got 'tf'"),
    ],
)
def test_other_inputs_are_refused(folder: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AutoProcessor.from_pretrained(folder)(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("hypclip.log_curv"), "hypclip.log_curv is missing"),
        (lambda w: w.update(more=torch.ones(1)), "more is not in this model"),
    ],
)
def test_other_weights_are_refused(folder: Path, change, message: str) -> None:
    """Transformers would draw what is missing at random and go on."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"hub holds other towers than its config: {message}"):
        AutoModel.from_pretrained(folder)


def test_a_config_that_cannot_work_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["geometri"] = "lorentz"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"unknown key 'model.geometri', did you mean 'geometry'"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("processor_config.json", {}, "processor_config.json lacks image_processor"),
        (
            "processor_config.json",
            {"image_processor": {"image_processor_type": "HypCLIPImageProcessor", "image_size": 32}},
            "the image processor lacks image_mean, image_std",
        ),
        ("tokenizer_config.json", {"tokenizer_class": "HypCLIPTokenizer"}, "tokenizer_config.json lacks text_cfg"),
    ],
)
def test_a_file_without_its_settings_is_named(folder: Path, file: str, content: dict, message: str) -> None:
    (folder / file).write_text(json.dumps({"processor_class": "HypCLIPProcessor", **content}))
    with pytest.raises(CheckpointError, match=message):
        AutoProcessor.from_pretrained(folder)


def test_a_tokenizer_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    model = tiny_model()
    towers = {**TOWERS, "text_cfg": {**TOWERS["text_cfg"], "hf_tokenizer_name": "bert-base-uncased"}}
    object.__setattr__(model.config, "towers", towers)  # building it would need the tokenizer's files
    message = "hf_tokenizer_name 'bert-base-uncased': .*no tokenizer but CLIP's"
    with pytest.raises(ConfigError, match=message):
        export_huggingface(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    config = json.loads((folder / "config.json").read_text())
    config["model"]["towers"] = towers
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        AutoModel.from_pretrained(folder)


@pytest.mark.slow
def test_without_transformers_the_extra_is_named() -> None:
    """And hypclip itself works without."""
    code = (
        "import sys; sys.modules['transformers'] = None; import hypclip.checkpoint, hypclip.errors\n"
        "assert 'hypclip.export' not in sys.modules\n"
        "try: import hypclip.export.huggingface\n"
        "except hypclip.errors.MissingExtraError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hypclip.export.huggingface: ")
    assert "pip install 'hypclip[hf]'" in done.stdout


# Command --------------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model()
    with checkpoint.atomic_directory(tmp_path / "checkpoint") as scratch:
        checkpoint.save(model, scratch)
    arguments = [str(tmp_path / "checkpoint"), str(tmp_path / "hub"), "--to", "huggingface"]
    assert main(arguments) == 0
    assert "config.json, model.safetensors, processor_config.json" in capsys.readouterr().out
    assert AutoModel.from_pretrained(tmp_path / "hub").hypclip.embed_text(TEXTS).equal(model.eval().embed_text(TEXTS))
    assert main(arguments) == 1
    assert "hub exists and is not an empty folder" in capsys.readouterr().err
    (tmp_path / "hub" / "mine").write_text("mine")
    assert main([*arguments, "--overwrite"]) == 0
    (aside,) = tmp_path.glob("hub.*")
    assert (aside / "mine").read_text() == "mine"
    assert not (tmp_path / "hub" / "mine").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["checkpoint", "hub", aside.name])
