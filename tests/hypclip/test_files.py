"""Text as editors save it, paths as people type them, and what is there before a command writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hypclip import files
from hypclip.checkpoint import read_config
from hypclip.errors import DataError, HypclipError, InputError
from hypclip.evaluation.hierarchy import read_taxonomy
from hypclip.evaluation.zero_shot import read_labelled_images, read_templates
from hypclip.files import (
    check_output,
    expand_home,
    is_empty,
    make_room,
    read_text,
    set_aside,
    user_path,
    write_output,
)
from serve.http.keys import Keyring

# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("text", ["", "a", "Öl №1\n", "{}"])
def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding, text):
    (tmp_path / "a").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "a") == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_are_named(tmp_path, encoding):
    (tmp_path / "a").write_bytes('{"a": "dog"}'.encode(encoding))
    with pytest.raises(DataError, match=r"/a is no UTF-8 but UTF-16, .*: save it again as UTF-8$"):
        read_text(tmp_path / "a")


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a").write_bytes("Öl".encode("latin-1"))
    with pytest.raises(DataError, match=r"/a is no UTF-8 text \(.*0xd6.*\): save it again as UTF-8$"):
        read_text(tmp_path / "a")


# Paths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("~/a/{0..9}.tar", "/home/me/a/{0..9}.tar"),
        ("~", "/home/me"),
        ("a/~/b", "a/~/b"),
        ("a~", "a~"),
        ("s3://bucket/~x", "s3://bucket/~x"),
        ("~no-such-user/a", "~no-such-user/a"),
        ("", ""),
    ],
)
def test_a_leading_tilde_is_the_home_folder(monkeypatch, typed, meant):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home(typed) == meant
    assert user_path(typed) == Path(meant)


# What is there --------------------------------------------------------------------------------------------------------


def dated(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith(f"{name}."))


def test_what_is_set_aside_has_a_date_and_never_takes_a_name_that_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(files.time, "strftime", lambda _: "2026-11-28T130908")
    for content in "abc":
        (tmp_path / "x.json").write_text(content)
        set_aside(tmp_path / "x.json")
    names = ["x.json.2026-11-28T130908", "x.json.2026-11-28T130908-2", "x.json.2026-11-28T130908-3"]
    assert [(path.name, path.read_text()) for path in sorted(tmp_path.iterdir())] == list(
        zip(names, "abc", strict=True)
    )


def test_a_folder_without_a_name_of_its_own_can_be_set_aside(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert set_aside(Path()).parent == tmp_path
    assert not (tmp_path / "here").exists()


def test_room_is_made_where_nothing_is_lost_by_it(tmp_path):
    assert make_room(tmp_path / "new", overwrite=False) is None
    (tmp_path / "empty").mkdir()
    assert make_room(tmp_path / "empty", overwrite=True) is None
    assert is_empty(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    with pytest.raises(
        InputError, match=r"/full exists and is not an empty folder: choose another, or add --overwrite"
    ):
        make_room(tmp_path / "full", overwrite=False)
    aside = make_room(tmp_path / "full", overwrite=True)
    assert [aside] == dated(tmp_path, "full")
    assert (aside / "a").read_text() == "mine"
    assert not (tmp_path / "full").exists()


@pytest.mark.parametrize("make", [lambda p: p.write_text("mine"), lambda p: p.symlink_to("nowhere")])
def test_a_file_or_a_dangling_link_is_something(tmp_path, make):
    make(tmp_path / "x")
    assert not is_empty(tmp_path / "x")
    with pytest.raises(InputError, match="--overwrite"):
        make_room(tmp_path / "x", overwrite=False)


def test_where_a_file_system_begins_there_is_no_room():
    with pytest.raises(
        InputError, match=r"/proc is where a file system begins, .*give a folder in it, such as /proc/new"
    ):
        make_room(Path("/proc"), overwrite=True)


# Results --------------------------------------------------------------------------------------------------------------


def test_results_take_no_others_place(tmp_path):
    path = tmp_path / "new" / "scores.json"
    assert write_output(path, "one") is None
    assert write_output(path, "one") is None
    assert [p.name for p in path.parent.iterdir()] == ["scores.json"]
    aside = write_output(path, "two")
    assert (path.read_text(), aside.read_text()) == ("two", "one")
    assert [aside] == dated(path.parent, "scores.json")


def test_results_go_behind_a_link_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "scores.json").write_text("one")
    link = tmp_path / "scores.json"
    link.symlink_to("disk/scores.json")
    aside = write_output(link, "two")
    assert (link.is_symlink(), link.read_text(), aside.read_text()) == (True, "two", "one")
    assert [aside] == dated(tmp_path / "disk", "scores.json")


def test_results_go_into_a_pipe_which_stays(tmp_path):
    """As into /dev/null, which must not become a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert write_output(pipe, "one") is None
        assert os.read(reader, 99) == b"one"
    finally:
        os.close(reader)
    assert [pipe.is_fifo(), *tmp_path.iterdir()] == [True, pipe]


def test_results_on_standard_output_take_the_place_of_no_file(tmp_path):
    out = tmp_path / "out.txt"
    program = (
        "from pathlib import Path; from hypclip.files import write_output; write_output(Path('/dev/stdout'), 'two')"
    )
    with out.open("wb") as stream:
        stream.write(b"one ")
        stream.flush()
        subprocess.run([sys.executable, "-c", program], stdout=stream, check=True)
    assert out.read_text() == "one two"
    assert [*tmp_path.iterdir()] == [out]


def test_a_folder_is_no_place_for_results(tmp_path):
    with pytest.raises(InputError, match=r"is a folder: give the name of a file"):
        check_output(tmp_path)
    check_output(tmp_path / "a" / "b.json")
    assert (tmp_path / "a").is_dir()


# Everything that a user writes ----------------------------------------------------------------------------------------


def labelled(file: Path) -> object:
    Image.new("RGB", (8, 8)).save(file.parent / "a" / "1.png")
    return read_labelled_images(file.parent, file).names


@pytest.mark.parametrize(
    ("read", "text", "want"),
    [
        (labelled, '{"a": "Öl"}', [["Öl"]]),
        (lambda file: list(read_taxonomy(file).edges), '[["Öl", "root"]]', [("Öl", "root")]),
        (read_templates, "Öl {}\r\na {}\r\n", ["Öl {}", "a {}"]),
        (lambda file: Keyring.read(file).is_open, f"laptop:read:{'0' * 64}\n", False),
        (lambda file: read_config(file.parent)["model"], "format: 1\nmodel: Öl\nweights_sha256: x\n", "Öl"),
    ],
    ids=["classes", "taxonomy", "templates", "keys", "checkpoint"],
)
def test_a_byte_order_mark_is_passed_over_and_utf_16_is_named(tmp_path, read, text, want):
    (tmp_path / "a").mkdir()
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode("utf-8-sig"))
    assert read(file) == want
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(HypclipError, match=r"config.yaml is no UTF-8 but UTF-16"):
        read(file)
