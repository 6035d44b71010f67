"""hypclip.export.onnx: files that ONNX Runtime runs to the model's embeddings, or none; and train/export.py."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from hypclip import HypCLIP, checkpoint
from hypclip.errors import ConfigError, MissingExtraError
from hypclip.export.onnx import export_onnx, write_graph
from hypclip.geometry import lorentz
from tests.support.models import tiny_model
from train.export import main

TEXT = {"context_length": 16, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8, "patch_dropout": 0.5}
RESNET = {"layers": [1, 2, 2, 1], "width": 16, "image_size": 64}
TIMM = {
    "image_size": 32,
    "timm_model_name": "vit_tiny_patch16_224",
    "timm_model_kwargs": {"depth": 1, "embed_dim": 64, "num_heads": 2, "patch_size": 8, "img_size": 32},
    "timm_pool": "avg",
    "timm_proj": "linear",
}
SPACES = {
    "lorentz": {"curv_init": 0.6},
    "product": {"geometry": "product", "distance": "l1_mean", "factor_dim": 4, "curv_init": 0.6},
    "euclidean": {"geometry": "euclidean"},
    "sphere": {"geometry": "sphere"},
}
NORMS = (0.0, 1e-6, 1e-3, 1.0, 10.0)


def model_of(vision: dict = VIT, text: dict = TEXT, **changes) -> HypCLIP:
    model = tiny_model(towers={"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, **changes).eval()
    with torch.no_grad():
        for parameter in (model.log_image_scale, model.log_text_scale, model.log_curv):
            parameter.add_(0.3 * torch.rand_like(parameter))
    return model


def runner(path: Path, name: str) -> Callable[[Tensor], Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == [name]
    assert [value.name for value in session.get_outputs()] == ["embedding"]
    return lambda rows: torch.from_numpy(session.run(["embedding"], {name: rows.numpy()})[0])


def worst(rows: Tensor, expected: Tensor) -> float:
    assert rows.dtype == torch.float32
    assert rows.shape == expected.shape
    return ((rows - expected).norm(dim=1) / expected.norm(dim=1)).max().item()


@torch.no_grad()
def assert_images_agree(folder: Path, model: HypCLIP) -> None:
    run = runner(folder / "image.onnx", "pixels")
    for rows in (1, 2, 5):
        pixels = torch.randn(rows, 3, model.image_size, model.image_size)
        assert worst(run(pixels), model.encode_image(pixels)) < 1e-4


@torch.no_grad()
def assert_texts_agree(folder: Path, model: HypCLIP, shapes: list[tuple[int, int]]) -> None:
    run = runner(folder / "text.onnx", "tokens")
    for shape in shapes:
        tokens = torch.randint(1, 49000, shape)
        tokens[:, -1] = 49407
        tokens[0, shape[1] // 2 + 1 :] = 0  # padding
        assert worst(run(tokens), model.encode_text(tokens)) < 1e-4


# Embeddings -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vision", "space"),
    [(VIT, "lorentz"), (RESNET, "product"), (TIMM, "sphere")],
    ids=["vit-lorentz", "resnet-product", "timm-sphere"],
)
def test_files_give_the_embeddings_of_the_model(
    tmp_path: Path, vision: dict, space: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(vision, **SPACES[space])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = tmp_path / "onnx"
    export_onnx(model.train(), folder)  # dropout is off in a file all the same
    assert model.training
    model.eval()
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "image.onnx", "text.onnx"]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []  # of the exporter's own doings
    for name in ("image.onnx", "text.onnx"):
        onnx.checker.check_model(str(folder / name), full_check=True)
        assert str(Path(torch.__file__).parent).encode() not in (folder / name).read_bytes()
    assert_images_agree(folder, model)
    assert_texts_agree(folder, model, [(1, 1), (1, 5), (2, 2), (4, 9), (3, 15), (5, 16)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    config = json.loads((folder / "config.json").read_text())
    hyperbolic = space in ("lorentz", "product")
    assert config["curv"] == (model.curv.flatten().tolist() if hyperbolic else [])
    assert len(config["curv"]) == {"lorentz": 1, "product": 4}.get(space, 0)
    assert config["logit_scale"] == pytest.approx(1 / 0.07)
    wanted = {
        "geometry": space,
        "distance": model.metric.distance,
        "dim": 16,
        "image_size": model.image_size,
        "image_mean": list(model.config.image_mean),
        "image_std": list(model.config.image_std),
        "context_length": 16,
        "pad_id": 0,
        "pad_to_context": False,
        "model_id": "unsaved",
    }
    assert {key: config[key] for key in wanted} == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "rule", "expected"),
    [
        ("lorentz", {"form": "plane", "threshold": 0.25}, {"form": "plane", "threshold": 0.25, "strict": True}),
        ("product", {"form": "cone", "eta": 0.7}, {"form": "cone", "eta": 0.7, "min_radius": 0.1, "strict": True}),
        ("euclidean", None, {"form": "cone", "eta": 1.0, "min_radius": 0.1, "strict": True}),
        ("sphere", None, None),  # where no point is more general than another
    ],
)
def test_the_config_says_what_entails_what(tmp_path: Path, space: str, rule: dict | None, expected: dict) -> None:
    model = model_of(**SPACES[space], **({} if rule is None else {"entailment": rule}))
    model.image_tower, model.text_tower = Corner(), Words()  # type: ignore[assignment]
    export_onnx(model, tmp_path / "onnx")
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["entailment"] == expected


class Corner(nn.Module):
    """Gives some of its numbers as they are."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)[:, :16]


class Words(nn.Module):
    """A text tower that is quickly exported."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(49408, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).mean(1)


def plain(**changes) -> HypCLIP:
    """A model whose pixels are its features, at scale 1."""
    return with_plain_towers(model_of(**changes))


def with_plain_towers(model: HypCLIP) -> HypCLIP:
    model.image_tower, model.text_tower = Corner(), Words()
    with torch.no_grad():
        model.log_image_scale.fill_(0.0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("space", ["lorentz", "product"])
def test_the_lift_keeps_its_accuracy_at_every_radius(tmp_path: Path, space: str) -> None:
    model = plain(**SPACES[space])
    export_onnx(model, tmp_path / "onnx")
    run = runner(tmp_path / "onnx" / "image.onnx", "pixels")
    directions = nn.functional.normalize(torch.randn(8, 4, 4), dim=-1)  # of length 1 in each factor
    if space == "lorentz":
        directions = directions / 2
    for norm in NORMS:
        pixels = torch.zeros(8, 3 * 32 * 32)
        pixels[:, :16] = norm * directions.flatten(1)
        rows = run(pixels.view(8, 3, 32, 32))
        exact = model.metric.lift(pixels[:, :16].double(), torch.ones(()), model.curv.detach().double())
        assert (rows - exact).norm() <= 2e-6 * exact.norm(), norm
        if norm == 0:
            assert torch.equal(rows, torch.zeros(8, 16))
        if space == "lorentz":  # at distance r of the origin for features of length r
            curv = json.loads((tmp_path / "onnx" / "config.json").read_text())["curv"][0]
            torch.testing.assert_close(lorentz.radius(rows, curv), torch.full((8,), norm), rtol=2e-6, atol=0)


@pytest.mark.slow
def test_a_tower_whose_rows_always_fill_the_context_says_so(tmp_path: Path) -> None:
    """Its features would change with the padding."""
    model = model_of(VIT, {**TEXT, "no_causal_mask": True, "pool_type": "last"}, geometry="euclidean")
    model.image_tower = Corner()
    export_onnx(model, tmp_path / "onnx")
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["pad_to_context"] is True
    assert_texts_agree(tmp_path / "onnx", model, [(1, 16), (3, 16)])
    assert_images_agree(tmp_path / "onnx", model)


def test_weights_may_stand_beside_the_file(tmp_path: Path) -> None:
    tower = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 4)).eval()
    sample = torch.randn(2, 300)
    write_graph(tower, sample, tmp_path / "a.onnx", "rows", {0: torch.export.Dim.DYNAMIC}, external_data=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data"]
    torch.testing.assert_close(runner(tmp_path / "a.onnx", "rows")(sample[:1]), tower(sample[:1]).detach())


# Refusals -------------------------------------------------------------------------------------------------------------


class Undecided(nn.Module):
    """What it does depends on the numbers, which a graph cannot express."""

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows.flatten(1)
        return rows[:, :16].float() if rows.sum() > 0 else rows[:, 1:17].float()


class Counting(nn.Module):
    """What it gives depends on more than its input."""

    calls = 0

    def forward(self, rows: Tensor) -> Tensor:
        self.calls += 1
        return rows.flatten(1)[:, :1].float() * self.calls * torch.ones(16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "reason"),
    [(Undecided(), "data-dependent"), (Counting(), r"features of a \(2, 3, 32, 32\) .* are off by")],
)
def test_a_wrong_file_is_not_written(tmp_path: Path, tower: nn.Module, reason: str) -> None:
    model = model_of()
    model.image_tower = tower
    old = tmp_path / "onnx"
    old.mkdir()
    (old / "kept").write_text("1")
    with pytest.raises(ConfigError, match=f"model.towers cannot be exported to image.onnx: .*{reason}.*torch.onnx"):
        export_onnx(model, old)
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    assert [path.name for path in old.iterdir()] == ["kept"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_refused_by_its_extra(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"export to ONNX: .*{package}.*pip install 'hypclip\[onnx\]'"):
        export_onnx(model_of(), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


# Command --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with checkpoint.atomic_directory(tmp_path / "checkpoint") as folder:
        checkpoint.save(model_of(), folder, name="tiny")
    return tmp_path / "checkpoint"


def test_the_command_writes_onnx(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypclip.load", lambda path: with_plain_towers(checkpoint.load(path)))
    output = saved.parent / "deep" / "onnx"
    output.mkdir(parents=True)
    assert main([str(saved), str(output), "--to", "onnx"]) == 0
    assert "config.json, image.onnx, text.onnx" in capsys.readouterr().out
    assert json.loads((output / "config.json").read_text())["model_id"].startswith("tiny-")


def test_the_command_refuses_a_folder_in_use(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(file.name for file in saved.iterdir())
    for output in (saved, saved / "config.yaml"):
        assert main([str(saved), str(output), "--to", "onnx"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(
            f"error: {output} exists and is not an empty folder: choose another, or add --overwrite"
        )
    assert sorted(file.name for file in saved.iterdir()) == before


def test_the_command_names_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), str(tmp_path / "onnx"), "--to", "onnx"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "none is not a checkpoint" in error
    assert not (tmp_path / "onnx").exists()


def test_a_disk_that_cannot_be_written_is_one_line(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved.parent / "file").write_text("")
    assert main([str(saved), str(saved.parent / "file" / "onnx"), "--to", "onnx"]) == 1
    assert capsys.readouterr().err.startswith("error: [Errno 20]")
