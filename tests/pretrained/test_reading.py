"""Files of published checkpoints are read or refused, and nothing in them is run; the command that converts them."""

import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import ListConfig
from PIL import Image

import hypclip
from hypclip.checkpoint import read_config
from hypclip.errors import CheckpointError
from hypclip.pretrained.published.reading import kind_beside, read_weights
from tests.pretrained.test_published import published, tiny
from tests.support.published import IMAGENET_STD, S, peer_image_features, peer_lift, peer_text_features, peer_weights
from train.convert import main

# Files ----------------------------------------------------------------------------------------------------------------


def small() -> dict:
    return {"a": torch.arange(3.0), "b": torch.tensor(2.0)}


LAYOUTS = {
    "training": ({"model": small(), "optimizer": {"state": {}}, "scaler": None, "iteration": 500_000}, 500_000),
    "final": ({"model": small()}, None),
    "bare": (small(), None),
    "ddp": ({"model": {f"module.{k}": v for k, v in small().items()}, "iteration": "many"}, None),
    "omegaconf": (
        {"model": small(), "optimizer": {"betas": ListConfig([0.9, 0.98]), "lr": ListConfig([1, "x"])}},
        None,
    ),
}


@pytest.mark.parametrize(("content", "step"), LAYOUTS.values(), ids=LAYOUTS)
def test_files_of_every_layout_are_read(tmp_path, content, step, monkeypatch):
    torch.save(content, tmp_path / "peer.pth")
    for module in ("base", "listconfig", "nodes"):
        monkeypatch.setitem(sys.modules, f"omegaconf.{module}", None)  # not to be imported
    weights = read_weights(tmp_path / "peer.pth")
    assert weights.step == step
    assert weights.tensors.keys() == {"a", "b"}
    assert all(torch.equal(weights.tensors[key], value) for key, value in small().items())


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "named"), [(os.system, r"'(posix|nt)\.system'"), (eval, "'eval'"), (Path.touch, "'getattr'|Path")]
)
def test_a_file_that_would_run_code_is_refused_and_does_nothing(tmp_path, function, named):
    target = tmp_path / "touched"
    arguments = (f"touch {target}",) if function is os.system else (f"open({str(target)!r}, 'w')",)
    attack = Malicious(function, *((target,) if function is Path.touch else arguments))
    for content in ({"model": small(), "optimizer": attack}, {"model": attack}, {"model": small() | {"a": attack}}):
        torch.save(content, tmp_path / "peer.pth")
        with pytest.raises(CheckpointError, match=f"is refused: it holds ({named}).*could run code"):
            hypclip.load(tmp_path / "peer.pth")
    assert not target.exists()


def broken(path: Path, how: str) -> None:
    torch.save({"model": small()}, path)
    match how:
        case "cut short":
            path.write_bytes(path.read_bytes()[:-200])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("version https://git-lfs.github.com/spec/v1\n")
        case "other zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("readme.txt", "hello")
        case "packed again":
            with zipfile.ZipFile(path) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in parts.items():
                    archive.writestr(name, data)
        case "bad pickle":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", b"\x80\x02}q\x00(X\x05")
                archive.writestr("archive/version", b"3\n")
        case "list":
            torch.save([1, 2], path)
        case "no tensors":
            torch.save({"model": {"a": 1.0}}, path)
        case "nothing":
            torch.save({"model": {}}, path)
        case "numbered":
            torch.save({1: torch.zeros(1)}, path)


BROKEN = {
    "cut short": "not a file that torch.save wrote, or it is cut short",
    "empty": "not a file that torch.save wrote",
    "text": "not a checkpoint directory, and .*expected the directory of a hypclip model or a published",
    "other zip": "is a zip file, but torch.save did not write it",
    "packed again": "was packed again, compressed",
    "bad pickle": "cannot read .*peer.pth",
    "list": "holds no state dict: expected .* got list$",
    "no tensors": "'a' must be a tensor, got float",
    "nothing": "holds no state dict: .* got dict of 0",
    "numbered": "holds no state dict: .* got dict of 1",
}


@pytest.mark.parametrize(("how", "message"), BROKEN.items(), ids=BROKEN)
def test_other_and_damaged_files_are_refused(tmp_path, how, message):
    broken(tmp_path / "peer.pth", how)
    with pytest.raises(CheckpointError, match=message):
        hypclip.load(tmp_path / "peer.pth")


def test_a_file_with_the_wrong_keys_is_named(tmp_path):
    torch.save({"model": small()}, tmp_path / "peer.pth")
    with pytest.raises(CheckpointError, match=r"peer\.pth: visual.cls_token is missing"):
        hypclip.load(tmp_path / "peer.pth")


# The config beside a file ---------------------------------------------------------------------------------------------

CONFIGS = {
    "target": ("model:\n  _target_: meru.models.MERU\n  embed_dim: 512\n", "meru"),
    "python name": ("model:\n  _target_: !!python/name:hycoclip.models.HyCoCLIP ''\n", "hycoclip"),
    "python objects": (
        "dataset: !!python/object/apply:os.system [touch TARGET]\n"
        "optim: !!python/object/new:omegaconf.listconfig.ListConfig {state: {a: !!python/tuple [1, 2]}}\n"
        "model: {_target_: hycoclip.models.HyCoCLIP}\n",
        "hycoclip",
    ),
    "ours": ("format: 1\nmodel: {geometry: lorentz}\n", None),
    "no model": ("- 1\n", None),
    "other tag": ("model: !secret {_target_: meru.models.MERU}\n", None),
    "broken": ("model: {", None),
    "deep": ("[" * 5000, None),
    "unhashable": ("{[1]: {}, !!python/tuple [1]: 2}", None),
}


@pytest.mark.parametrize(("text", "kind"), CONFIGS.values(), ids=CONFIGS)
def test_the_config_beside_a_file_may_name_its_kind_and_runs_nothing(tmp_path, text, kind):
    (tmp_path / "config.yaml").write_text(text.replace("TARGET", str(tmp_path / "touched")))
    assert kind_beside(tmp_path / "peer.pth") == kind
    assert not (tmp_path / "touched").exists()


def test_no_config_names_nothing(tmp_path):
    assert kind_beside(tmp_path / "peer.pth") is None
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    assert kind_beside(tmp_path / "peer.pth") is None


# A whole ViT-S, and the command ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit_s(tmp_path_factory) -> tuple[Path, dict]:
    weights = peer_weights("hycoclip", S, mean=IMAGENET_STD)
    path = tmp_path_factory.mktemp("peer") / "hycoclip_vit_s.pth"
    optimizer = {"param_groups": [{"betas": ListConfig([0.9, 0.98])}]}
    torch.save({"model": weights, "optimizer": optimizer, "iteration": 500_000}, path)
    return path, weights


@pytest.fixture(scope="module")
def loaded(vit_s) -> hypclip.HypCLIP:
    return hypclip.load(vit_s[0])


@torch.no_grad()
def test_a_published_vit_s_has_its_embeddings(vit_s, loaded):
    weights = vit_s[1]
    assert not loaded.training
    picture, text = Image.effect_noise((224, 224), 90).convert("RGB"), "a dog on a beach"
    colours = torch.tensor(list(picture.tobytes())).view(1, 224, 224, 3).permute(0, 3, 1, 2) / 255
    pixels = (colours - weights["pixel_mean"]) / weights["pixel_std"]
    image = peer_lift(weights, "hycoclip", peer_image_features(weights, pixels, heads=12), "visual")
    tokens = torch.tensor([[49406, 320, 1929, 525, 320, 2117, 49407, 0, 0]])
    words = peer_lift(weights, "hycoclip", peer_text_features(weights, tokens), "textual")
    assert (loaded.embed_image([picture]) - image).abs().max() < 2e-5
    assert (loaded.embed_text([text]) - words).abs().max() < 2e-5
    with_six_heads = peer_lift(weights, "hycoclip", peer_image_features(weights, pixels, heads=6), "visual")
    assert (loaded.embed_image([picture]) - with_six_heads).abs().max() > 2e-4


def test_the_command_writes_the_same_model_as_a_directory(vit_s, loaded, tmp_path, capsys):
    path = tmp_path / "models" / "vit_s"
    path.mkdir(parents=True)  # empty: it may be there
    assert main([str(vit_s[0]), str(path)]) == 0
    out, err = capsys.readouterr()
    curv = vit_s[1]["curv"].exp().item()
    assert out == (
        f"meru or hycoclip, ViT-S, curvature {curv:.4g}, pixel mean (0.229, 0.224, 0.225), 500000 steps → {path}\n"
    )
    assert "pixel mean in this file is (0.229, 0.224, 0.225), which is the standard deviation" in err
    again = hypclip.load(path)
    assert (again.model_id, again.revision, again.config) == (loaded.model_id, loaded.revision, loaded.config)
    assert again.model_id == f"meru_or_hycoclip_vit_s-{again.revision[:12]}"
    state = again.state_dict()
    assert all(torch.equal(state[name], value) for name, value in loaded.state_dict().items())
    assert {n for n, p in again.named_parameters() if not p.requires_grad} == {"image_tower.trunk.pos_embed"}
    assert read_config(path)["step"] == 500_000

    assert main([str(vit_s[0]), str(path)]) == 1
    assert capsys.readouterr().err.startswith(
        f"error: {path} exists and is not an empty folder: choose another, or add --overwrite, "
    )


def test_overwrite_moves_what_is_there_once_there_is_another(tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert main([str(tmp_path / "none.pth"), str(tmp_path / "out"), "--overwrite"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.setattr("train.convert.load_published", lambda _, kind: published(tiny("hycoclip"), kind))
    assert main(["peer.pth", str(tmp_path / "out"), "--kind", "hycoclip", "--overwrite"]) == 0
    (aside,) = tmp_path.glob("out.*")
    assert f"what was in {tmp_path}/out is now {aside}\n" in capsys.readouterr().out
    assert (aside / "mine").read_text() == "mine"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["config.yaml", "model.safetensors"]


def test_kind_and_name_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.convert.load_published", lambda _, kind: published(tiny("hycoclip"), kind))
    assert main(["peer.pth", str(tmp_path / "out"), "--kind", "hycoclip", "--name", "mine"]) == 0
    assert capsys.readouterr().out.startswith("hycoclip, ViT-TINY, curvature ")
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (config["name"], config["objective"]) == ("mine", {"base": "hycoclip"})
    assert config["model"]["towers"]["vision_cfg"]["layer_norm_eps"] == 1e-5


def test_the_command_names_mistakes_and_leaves_nothing_behind(vit_s, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    for arguments, message in (
        ([vit_s[0], tmp_path / "out", "--kind", "uncha"], "its keys are those of meru or hycoclip, not of uncha"),
        ([tmp_path / "none.pth", tmp_path / "out"], "cannot read"),
        ([tmp_path / "notes.txt", tmp_path / "out"], "not a file that torch.save wrote"),
        ([vit_s[0], tmp_path / "notes.txt"], "exists and is not an empty folder"),
        ([vit_s[0], tmp_path], "exists and is not an empty folder"),
    ):
        assert main([str(a) for a in arguments]) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(SystemExit):
        main([str(vit_s[0]), str(tmp_path / "out"), "--kind", "siglip"])


@pytest.mark.parametrize("kind", ["clip", "phyclip"])
def test_the_line_says_what_spaces_have_for_a_curvature(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.setattr("train.convert.load_published", lambda *_: published(tiny(kind)))
    assert main([str(tmp_path / "peer.pth"), str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    space = {"clip": "no curvature (cosine)", "phyclip": "4 curvatures from 0."}[kind]
    assert out.startswith(f"{kind}, ViT-TINY, {space}")
    assert ", pixel mean (0.485, 0.456, 0.406), steps unknown → " in out
    assert not err
    assert hypclip.load(tmp_path / "out").metric.geometry == {"clip": "sphere", "phyclip": "product"}[kind]
