"""Kept ONNX exports: used again when they are right, made again when they are not, and never in the way."""

import json
import logging
import os
import shutil
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

import hypclip
from hypclip.errors import MissingExtraError
from hypclip.geometry.entailment import Cone, Plane
from serve.inference import backends
from serve.inference.backends import load_backend
from serve.inference.exports import Contents, Exports
from tests.serve.inference.test_backends import pictures, pillow, worst
from tests.support.processes import tiny_checkpoint

TEXTS = ["a dog", "two cats on a mat"]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Folders of the graphs of the tiny checkpoints of seed 0 and 1, exported once, since it takes seconds."""
    folders = {}
    for seed in (0, 1):
        place = tmp_path_factory.mktemp(f"seed{seed}") / "model"
        tiny_checkpoint(place, seed)
        start(place)
        (folders[seed],) = entries(place.with_name(".model.onnx"))
    return folders


@pytest.fixture
def place(tmp_path):
    tiny_checkpoint(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def written(monkeypatch, graphs):
    """The graphs that were exported, by the kind of tower; they are copies of `graphs`."""
    kinds = []

    def write(tower, sample, path, *_, **__):
        kind = "image" if sample.is_floating_point() else "text"
        first = next(tower.parameters()).sum()
        seed = 0 if first == next(p for p in parameters(kind)).sum() else 1
        kinds.append(kind)
        shutil.copyfile(graphs[seed] / f"{kind}.onnx", path)
        shutil.copyfile(graphs[seed] / f"{kind}.onnx.data", path.with_name(f"{kind}.onnx.data"))

    def parameters(kind):
        model = hypclip.load(graphs[0].parent.with_name("model"))
        return (model.image_tower if kind == "image" else model.text_tower).parameters()

    monkeypatch.setattr(backends, "write_graph", write)
    return kinds


def start(place, precision="float32", cache=None):
    """Load as a start of the server does; what runs must embed as the model does."""
    model = hypclip.load(place)
    backend = load_backend(model, "onnx", precision, Exports(place, cache))
    pixels = pictures(3)
    tolerance = 0.2 if precision == "int8" else 1e-5
    assert worst(backend.text(model.tokenizer.encode(TEXTS)), model.embed_text(TEXTS)) < tolerance
    assert worst(backend.image(pixels), model.embed_image(pillow(pixels))) < tolerance
    return model


def entries(folder):
    return sorted(path for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_second_start_exports_nothing(place, written, precision):
    start(place, precision)
    assert len(written) == 2
    (entry,) = entries(place.with_name(".model.onnx"))
    assert entry.name.startswith(f"{hypclip.load(place).revision[:12]}-{precision}-")
    assert {file.name.partition(".")[0] for file in entry.iterdir()} == {"export", "image", "text"}
    start(place, precision)
    assert len(written) == 2


def test_the_checkpoint_stays_as_it_is(place, written):
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    start(place)
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before


def test_a_published_file_and_a_link_have_their_export_beside_what_they_are(tmp_path):
    assert Exports(tmp_path / "meru.pth").folder == tmp_path / ".meru.pth.onnx"
    (tmp_path / "step-1").mkdir()
    (tmp_path / "latest").symlink_to("step-1")
    assert Exports(tmp_path / "latest").folder == tmp_path / ".step-1.onnx"


def test_checkpoints_of_one_name_share_a_cache_without_meeting(tmp_path):
    folders = {Exports(tmp_path / name / "checkpoint", tmp_path / "cache").folder for name in "ab"}
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "cache"}


def test_the_export_goes_where_it_is_told(place, written, tmp_path):
    for _ in range(2):
        start(place, cache=tmp_path / "deep" / "cache")
    assert len(written) == 2
    assert not place.with_name(".model.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("spoil", ["cut", "flipped", "missing", "no list", "list of nonsense", "wrong model"])
def test_a_damaged_export_is_made_again(place, written, graphs, spoil, caplog):
    start(place)
    (entry,) = entries(place.with_name(".model.onnx"))
    data = entry / "text.onnx.data"
    match spoil:
        case "cut":
            os.truncate(data, data.stat().st_size // 2)
        case "flipped":
            content = bytearray(data.read_bytes())
            content[len(content) // 2] ^= 0xFF
            data.write_bytes(content)
        case "missing":
            data.unlink()
        case "no list":
            (entry / "export.json").unlink()
        case "list of nonsense":
            (entry / "export.json").write_text("{")
        case "wrong model":  # whole, and not of these weights
            shutil.rmtree(entry)
            shutil.copytree(graphs[1], entry)
    start(place)
    assert len(written) == 4
    if spoil != "no list":  # which is what a folder that is no export looks like
        assert f"{entry}" in caplog.text
        assert "made again" in caplog.text
    assert entries(entry.parent) == [entry]
    start(place)
    assert len(written) == 4


def test_another_checkpoint_in_the_same_place_has_an_export_of_its_own_which_takes_the_place(place, written):
    start(place)
    start(place, "int8")
    (place.with_name(".model.onnx") / "notes").mkdir()  # nothing of ours
    first = entries(place.with_name(".model.onnx"))
    tiny_checkpoint(place, seed=1)
    revision = start(place).revision
    assert len(written) == 6
    left = entries(place.with_name(".model.onnx"))
    assert [path.name for path in left if path not in first] == [
        path.name for path in left if path.name.startswith(revision[:12])
    ]
    assert sorted(path.name for path in left if path in first) == ["notes"]


def test_each_precision_has_an_export_and_other_libraries_replace_it():
    base = Contents("a" * 64, "float32", {"torch": "1"})
    other_torch, int8 = Contents("a" * 64, "float32", {"torch": "2"}), Contents("a" * 64, "int8", {"torch": "1"})
    other_weights = Contents("b" * 64, "float32", {"torch": "1"})
    assert len({each.name for each in (base, other_torch, int8, other_weights)}) == 4
    assert base.takes_the_place_of(other_torch.name)
    assert base.takes_the_place_of(other_weights.name)
    assert not base.takes_the_place_of(int8.name)
    assert not base.takes_the_place_of(base.name)


def test_what_decides_a_graph_is_in_its_name(place, monkeypatch):
    model = hypclip.load(place)
    names = {backends._contents(model, precision, packs).name for precision in ("float32", "int8") for packs in (0, 1)}
    towers = {**model.config.towers, "quick_gelu": True}  # the same weights, another function
    object.__setattr__(model.config, "towers", towers)
    names.add(backends._contents(model, "float32", False).name)
    for rule in (Plane(), Plane(threshold=0.5), Cone(eta=0.5)):
        object.__setattr__(model.config, "entailment", rule)
        names.add(backends._contents(model, "float32", False).name)
    monkeypatch.setattr(backends, "version", lambda package: "2.0" if package == "torch" else "1.0")
    names.add(backends._contents(model, "float32", False).name)
    assert len(names) == 9


def test_the_same_weights_with_another_rule_are_exported_anew(place, written):
    revision = start(place).revision
    first = entries(place.with_name(".model.onnx"))
    tiny_checkpoint(place, entailment={"form": "plane"})
    assert start(place).revision == revision
    assert len(written) == 4
    (left,) = entries(place.with_name(".model.onnx"))
    assert left not in first


def test_a_folder_that_cannot_be_written_is_no_failure(place, written, caplog):
    place.with_name(".model.onnx").write_text("in the way")  # as for root a read-only folder is not
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            start(place)
    assert len(written) == 4
    assert "cannot be kept" in caplog.text
    assert "HYPCLIP_ONNX_CACHE" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_no_failure_and_what_is_in_it_is_used(place, written):
    start(place)
    folder = place.with_name(".model.onnx")
    folder.chmod(0o500)
    place.parent.chmod(0o500)
    try:
        start(place)
        assert len(written) == 2
        start(place, "int8")
        assert len(written) == 4
    finally:
        place.parent.chmod(0o700)
        folder.chmod(0o700)


def test_a_full_disk_is_no_failure_and_leaves_nothing(place, written, monkeypatch, caplog):
    real = shutil.copyfile

    def copyfile(source, target):
        if not Path(target).is_relative_to(place.parent):
            return real(source, target)
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serve.inference.exports.shutil.copyfile", copyfile)
    with caplog.at_level(logging.INFO):
        start(place)
    assert "No space left on device" in caplog.text
    assert entries(place.with_name(".model.onnx")) == []


def test_what_a_killed_export_left_is_swept_and_what_another_writes_is_not(place, written):
    folder = place.with_name(".model.onnx")
    for name, age_s in ((".writing-old", 7200), (".writing-new", 10)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age_s,) * 2)
    start(place)
    assert [path.name for path in entries(folder) if path.name.startswith(".writing")] == [".writing-new"]


def test_of_several_that_start_at_once_one_exports(place, written):
    failed = []

    def run():
        try:
            start(place)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(written) == 2
    assert len(entries(place.with_name(".model.onnx"))) == 1


def test_two_that_keep_the_same_export_where_locks_do_not_work_leave_one(tmp_path, monkeypatch):
    tiny_checkpoint(tmp_path / "model")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "text.onnx").write_text("graph")
    exports, contents = Exports(tmp_path / "model"), Contents("a" * 64, "float32", {})
    rename = Path.rename

    def slower(self, target):
        if self.name.startswith(".writing-"):  # the other one is done just now
            shutil.copytree(self, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", slower)
    exports.keep(contents, tmp_path / "files")
    assert entries(exports.folder) == [exports.folder / contents.name]
    assert (exports.find(contents) / "text.onnx").read_text() == "graph"


@pytest.mark.parametrize(("weights", "expected"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)])
def test_who_cannot_read_the_weights_cannot_read_the_export(place, weights, expected):
    (place / "model.safetensors").chmod(weights)
    exports = Exports(place)
    before = os.umask(0o022)
    try:
        with exports.alone():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(exports.folder.stat().st_mode) == expected


def test_a_kept_export_needs_the_runtime_only(place, written, monkeypatch):
    start(place)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    start(place)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"hypclip\[onnx\]"):
        start(place)


def test_a_model_without_a_revision_is_exported_and_not_kept(place, written):
    model = hypclip.load(place)
    model.revision = ""
    exports = Exports(place)
    load_backend(model, "onnx", "float32", exports)
    assert len(written) == 2
    assert not exports.folder.exists()


def test_the_list_says_what_the_files_are(place, written):
    start(place)
    (entry,) = entries(place.with_name(".model.onnx"))
    listed = json.loads((entry / "export.json").read_text())
    assert sorted(listed) == sorted(file.name for file in entry.iterdir() if file.name != "export.json")
    assert all(len(value) == 64 for value in listed.values())
