import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import hypclip
from hypclip import checkpoint
from hypclip.checkpoint import atomic_directory, load_weights, read_config, save
from hypclip.errors import CheckpointError, InputError
from tests.support.models import TOWERS, tiny_model
from tests.support.search import unchecked
from tests.support.training import state_bits


@pytest.fixture
def saved(tmp_path) -> Path:
    folder = tmp_path / "saved"
    folder.mkdir()
    model = tiny_model(curv_init=0.7, image_mean=[0.1, 0.2, 0.3])
    save(model, folder, name="tiny", step=12, objective={"base": "meru"})
    return folder


def rewrite(folder: Path, **changes) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))


# Round trip -----------------------------------------------------------------------------------------------------------


def test_a_model_comes_back_bit_for_bit(tmp_path):
    model = tiny_model(curv_init=0.7, geometry="lorentz", image_std=[0.2, 0.3, 0.4]).train()
    with torch.no_grad():
        model.log_curv.fill_(0.123456789)
    save(model, tmp_path)
    again = hypclip.load(tmp_path)
    assert again.config == model.config
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert not again.training
    texts, images = ["a dog", "x"], [Image.new("RGB", (40, 30), "red")]
    assert torch.equal(again.embed_text(texts), model.embed_text(texts))
    assert torch.equal(again.embed_image(images), model.embed_image(images))


SPACES = {
    "product": {"geometry": "product", "distance": "l1_mean", "factor_dim": 4},
    "euclidean": {"geometry": "euclidean", "distance": "squared"},
    "sphere": {"geometry": "sphere"},
    "other scales": {"other_scales": {"box_scale": 3.0, "box_whole_scale": 5.0}},
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_model_of_any_space_comes_back(tmp_path, space):
    model = tiny_model(**space)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("log_"):
                parameter.add_(torch.rand_like(parameter))
    save(model, tmp_path)
    again = hypclip.load(tmp_path)
    assert again.config == model.config
    assert again.metric == model.metric
    assert torch.equal(again.curv, model.curv)
    assert again.scales == model.scales
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    texts = again.embed_text(["a dog", "x"])
    assert torch.equal(texts, model.embed_text(["a dog", "x"]))
    assert torch.equal(again.similarity(texts, texts), model.similarity(texts, texts))


def test_weights_of_another_space_are_named(tmp_path):
    save(tiny_model(geometry="product", distance="l1", factor_dim=4), tmp_path)
    with pytest.raises(CheckpointError, match=r"log_curv has shape \(4,\), the model needs \(\)"):
        load_weights(tiny_model(), tmp_path)
    with pytest.raises(CheckpointError, match=r"log_curv has shape \(4,\), the model needs \(8,\)"):
        load_weights(tiny_model(geometry="product", distance="l1", factor_dim=2), tmp_path)
    with pytest.raises(CheckpointError, match=r"log_other_scales.box_scale is missing"):
        load_weights(tiny_model(other_scales={"box_scale": 3.0}), tmp_path)


def test_weights_laid_out_for_convolution_come_back_too(tmp_path):
    model = tiny_model().to(memory_format=torch.channels_last)
    save(model, tmp_path)
    assert torch.equal(hypclip.load(tmp_path).image_tower.conv1.weight, model.image_tower.conv1.weight)


def test_towers_by_name_come_back_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("open_clip.get_model_config", lambda name: dict(TOWERS) if name == "tiny" else None)
    save(tiny_model(towers="tiny", geometry="sphere"), tmp_path)
    assert read_config(tmp_path)["model"]["towers"] == "tiny"
    again = hypclip.load(tmp_path)
    assert again.config.towers == "tiny"
    assert again.config.geometry == "sphere"


def test_the_config_says_what_is_in_the_directory(saved):
    config = read_config(saved)
    digest = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert config["format"] == 1
    assert config["weights_sha256"] == digest
    assert (config["name"], config["step"], config["objective"]) == ("tiny", 12, {"base": "meru"})
    assert config["model"]["towers"] == TOWERS
    assert config["model"]["image_mean"] == [0.1, 0.2, 0.3]
    assert hypclip.load(str(saved)).model_id == f"tiny-{digest[:12]}"


def test_other_weights_are_another_model(saved, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    save(tiny_model(seed=1), other, name="tiny")
    assert hypclip.load(other).model_id != hypclip.load(saved).model_id


def test_nothing_of_pickle_is_written(saved):
    assert sorted(state_bits(saved)) == ["config.yaml", "model.safetensors"]
    assert load_file(saved / "model.safetensors").keys() == tiny_model().state_dict().keys()


# Unreadable -----------------------------------------------------------------------------------------------------------


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere is not a checkpoint directory: expected config.yaml and model"):
        hypclip.load(tmp_path / "nowhere")


def test_a_file_is_no_checkpoint_directory(saved):
    with pytest.raises(CheckpointError, match=r"model.safetensors is not a checkpoint directory"):
        hypclip.load(saved / "model.safetensors")


def test_a_path_may_begin_at_home(saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert hypclip.load(f"~/{saved.name}").model_id == hypclip.load(saved).model_id


@pytest.mark.parametrize("wrong", [None, 7, "", [], b"runs/x"])
def test_what_is_no_path_is_refused(wrong):
    with unchecked(), pytest.raises(InputError, match="a model is loaded from the path of a checkpoint directory"):
        hypclip.load(wrong)


def test_what_stands_in_the_place_of_a_checkpoint_is_named(saved, tmp_path):
    run, unfinished, onnx, transformers = (tmp_path / name for name in ("run", "unfinished", "onnx", "transformers"))
    for folder in (run, unfinished / "checkpoints", onnx, transformers):
        folder.mkdir(parents=True)
    shutil.copytree(saved, run / "checkpoint")
    for step in ("step-00000002", "step-00000010"):
        shutil.copytree(saved, unfinished / "checkpoints" / step)
    shutil.copytree(unfinished / "checkpoints", run / "checkpoints")
    (run / "checkpoints" / "step-00000010" / "config.yaml").unlink()
    newest = unfinished / "checkpoints" / "step-00000010"
    (onnx / "image.onnx").write_bytes(b"")
    shutil.copy(saved / "model.safetensors", transformers)
    (transformers / "config.json").write_text("{}")
    for path, message in [
        (run, f"cannot read .*; it is the folder of a run, whose model is {run / 'checkpoint'}"),
        (run / "checkpoints", f"it is the folder of a run, whose model is {run / 'checkpoint'}"),
        (run / "checkpoints" / "step-00000010", f"it is the folder of a run, whose model is {run / 'checkpoint'}"),
        (unfinished, f"it belongs to a run without a finished model, whose newest checkpoint is {newest}"),
        (unfinished / "checkpoints", f"whose newest checkpoint is {newest}"),
        (onnx, "it is an export to ONNX, for onnxruntime"),
        (onnx / "image.onnx", "it is an export to ONNX, for onnxruntime"),
        (transformers, "it is a directory of transformers, for AutoModel"),
        (transformers / "model.safetensors", "it is a directory of transformers, for AutoModel"),
        (
            saved / "model.safetensors",
            f"is not a checkpoint directory or a published .pth file; load its folder, {saved}",
        ),
        (saved / "config.yaml", f"load its folder, {saved}"),
        (tmp_path / "org" / "model", "there is nothing of this name on this machine"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            hypclip.load(path)
    assert hypclip.load(newest).model_id == hypclip.load(saved).model_id


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 99])
def test_a_device_that_is_not_there_is_named(saved, device):
    with unchecked(), pytest.raises(InputError, match=f"device {device!r} cannot be used here, expected such as 'cpu'"):
        hypclip.load(saved, device)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"cannot read .*{name}"):
        hypclip.load(saved)


@pytest.mark.parametrize("keep", [0, 5, 200, 10_000, -1])
def test_truncated_weights_are_named(saved, keep):
    content = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r"cannot read .*model.safetensors"):
        hypclip.load(saved)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"a: [1", b"a: ${b}", b"\x00"])
def test_a_config_that_is_not_yaml_is_named(saved, content):
    (saved / "config.yaml").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read .*config.yaml"):
        hypclip.load(saved)


@pytest.mark.parametrize("content", ["", "- 1\n", "word\n", "format: 1\nmodel: {}\n"])
def test_a_config_of_something_else_is_named(saved, content):
    (saved / "config.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"config.yaml is not a hypclip checkpoint config"):
        hypclip.load(saved)


@pytest.mark.parametrize("format", [0, 2, "one", None])
def test_another_format_is_named(saved, format):
    rewrite(saved, format=format)
    with pytest.raises(CheckpointError, match=f"has format {format}; this version reads format 1"):
        hypclip.load(saved)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"towers": TOWERS, "geometri": "lorentz"},
            "config.yaml: unknown key 'model.geometri', did you mean 'geometry'",
        ),
        ({"towers": TOWERS, "geometry": "ball"}, "config.yaml: model.geometry"),
        ({"towers": "no-such-towers"}, "config.yaml: model.towers: .*'no-such-towers'"),
        (
            {"towers": TOWERS, "geometry": "product", "distance": "l1", "factor_dim": 5},
            "config.yaml: .*factor_dim 5 does not divide the embedding's 16 dimensions",
        ),
        ({"towers": TOWERS, "geometry": "sphere", "distance": "l1"}, "config.yaml: .*distance must be one of geodesic"),
        ({"geometry": "lorentz"}, "config.yaml: the config lacks 'model.towers'"),
        (5, "config.yaml: model must be a mapping"),
    ],
)
def test_a_model_config_that_cannot_work_is_named(saved, model, message):
    rewrite(saved, model=model)
    with pytest.raises(CheckpointError, match=message):
        hypclip.load(saved)


def test_other_towers_are_named(saved):
    wider = {**TOWERS, "vision_cfg": {**TOWERS["vision_cfg"], "width": 48}}
    with pytest.raises(CheckpointError, match=r"holds other towers.*has shape \(32,\), the model needs \(48,\).*more"):
        load_weights(tiny_model(towers=wider), saved)
    deeper = {**TOWERS, "text_cfg": {**TOWERS["text_cfg"], "layers": 3}}
    with pytest.raises(CheckpointError, match=r"text_tower.transformer.resblocks.2.\S+ is missing"):
        load_weights(tiny_model(towers=deeper), saved)
    flatter = {**TOWERS, "text_cfg": {**TOWERS["text_cfg"], "layers": 1}}
    with pytest.raises(CheckpointError, match=r"text_tower.transformer.resblocks.1.\S+ is not in this model"):
        load_weights(tiny_model(towers=flatter), saved)


def test_weights_that_do_not_fit_leave_the_model_as_it_was(saved):
    weights = load_file(saved / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "log_curv"}, saved / "model.safetensors")
    model = tiny_model(seed=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="log_curv is missing"):
        load_weights(model, saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Atomic directories ---------------------------------------------------------------------------------------------------


def listing(folder: Path) -> dict[str, list[str]]:
    return {path.name: sorted(file.name for file in path.iterdir()) for path in folder.iterdir()}


def test_a_directory_appears_whole(tmp_path):
    with atomic_directory(tmp_path / "deep" / "new") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "new").exists()
        assert not list((tmp_path / "deep").glob("[!.]*"))
        (folder / "b").write_text("2")
    assert listing(tmp_path / "deep") == {"new": ["a", "b"]}


def test_an_old_directory_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x"
    with atomic_directory(path) as folder:
        (folder / "old").write_text("1")
    with atomic_directory(path) as folder:
        (folder / "new").write_text("2")
        assert (path / "old").read_text() == "1"
    assert listing(tmp_path) == {"x": ["new"]}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_directory(tmp_path, error):
    path = tmp_path / "x"
    with atomic_directory(path) as folder:
        (folder / "old").write_text("1")

    def interrupted() -> None:
        with atomic_directory(path) as folder:
            (folder / "half").write_text("2")
            raise error

    with pytest.raises(error):
        interrupted()
    assert listing(tmp_path) == {"x": ["old"]}


def test_an_error_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "x") as folder:
        (folder / "missing" / "half").write_text("2")
    assert listing(tmp_path) == {}


def test_an_error_while_the_directories_change_places_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x"
    with atomic_directory(path) as folder:
        (folder / "old").write_text("1")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".writing"):
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(OSError, match="no space"), atomic_directory(path) as folder:
        (folder / "new").write_text("2")
    assert listing(tmp_path) == {"x": ["old"]}


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    for name in (".x.writing", ".x.retired"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale").write_text("0")
    with atomic_directory(tmp_path / "x") as folder:
        assert list(folder.iterdir()) == []
        (folder / "new").write_text("1")
    assert listing(tmp_path) == {"x": ["new"]}


def test_what_was_there_comes_back_after_a_kill_between_two_names(tmp_path):
    """And is lost to no write that fails."""
    (tmp_path / ".x.retired").mkdir()
    (tmp_path / ".x.retired" / "old").write_text("0")
    with pytest.raises(OSError, match="no space"), atomic_directory(tmp_path / "x"):
        raise OSError("no space left on device")
    assert listing(tmp_path) == {"x": ["old"]}


def test_a_folder_that_holds_the_very_model_is_told_from_others(tmp_path):
    model = tiny_model()
    with atomic_directory(tmp_path / "x") as folder:
        save(model, folder, step=1)
    assert checkpoint.is_saved(model, tmp_path / "x", step=1)
    assert not checkpoint.is_saved(model, tmp_path / "x", step=2)
    assert not checkpoint.is_saved(tiny_model(1), tmp_path / "x", step=1)
    assert not checkpoint.is_saved(model, tmp_path / "y", step=1)
    weights = tmp_path / "x" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert not checkpoint.is_saved(model, tmp_path / "x", step=1)


def test_files_reach_the_disk_before_the_directory_takes_its_name(tmp_path, monkeypatch):
    """After a power cut the name must not stand for empty files."""
    done: list[str] = []
    rename, sync = Path.rename, checkpoint.sync
    monkeypatch.setattr(checkpoint, "sync", lambda path: done.append(f"sync {path.name}") or sync(path))
    monkeypatch.setattr(Path, "rename", lambda self, to: done.append(f"rename {self.name}") or rename(self, to))
    with atomic_directory(tmp_path / "x") as folder:
        (folder / "a").write_text("1")
    assert done == ["sync a", "sync .x.writing", "rename .x.writing", f"sync {tmp_path.name}"]
