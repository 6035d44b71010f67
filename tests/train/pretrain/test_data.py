"""Whole runs over data as people have it: damaged shards, other captions, names with dots."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.data import encoded, quadrants, write_tar
from tests.support.pretraining import assert_refused, assert_resumes, config_of, run
from tests.support.training import read_log


@pytest.fixture
def cut(tmp_path, shards) -> Path:
    """A folder of shards, the last of which is cut in half."""
    folder = tmp_path / "cut"
    shutil.copytree(shards, folder)
    last = sorted(folder.glob("*.tar"))[-1]
    os.truncate(last, last.stat().st_size // 2)
    return folder


def test_a_damaged_shard_ends_the_run_with_its_name(tmp_path, cut, capsys):
    last = sorted(cut.glob("*.tar"))[-1]
    config = config_of(tmp_path, cut)
    assert_refused(config, capsys, rf"1 shard is damaged, more than data.max_bad_shards = 0 allows: .*: {last}: .")
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_damaged_shards_that_are_allowed_are_named_in_the_log_and_at_the_end(tmp_path, cut, capfd):
    last = str(sorted(cut.glob("*.tar"))[-1])
    config = config_of(tmp_path, cut, data__max_bad_shards=1)
    folder = assert_resumes(config, tmp_path)
    lines = read_log(folder)
    assert list(lines[-1]["damaged_shards"]) == [last]
    assert lines[-1]["skipped"] == {}
    said = capfd.readouterr()
    why = re.escape(lines[-1]["damaged_shards"][last])
    assert len(re.findall(f"warning: a damaged shard, of which a part is lost: {last}: {why}\n", said.err)) == 2
    assert len(re.findall(f"  a part is lost of the damaged shard {last}: {why}\n", said.out)) == 2  # two whole runs


@pytest.mark.parametrize("name", ["shot.2024.{:04}", "{:04}"])
@pytest.mark.parametrize("field", ["caption", "TEXT"])
def test_names_with_dots_and_captions_of_other_tools_are_trained_on(tmp_path, name, field):
    """Every sample of what was once one bad sample; the caption in a field of another name, several in a list."""
    files = []
    for i in range(24):
        fields = {"url": "x", field: [f"number {i}", "a picture"]}
        files += [(name.format(i) + ".jpg", encoded(quadrants(), "JPEG"))]
        files += [(name.format(i) + ".json", json.dumps(fields).encode())]
    write_tar(tmp_path / "data" / "0.tar", files)
    config = config_of(tmp_path, tmp_path / "data", train__batch_size=24, train__steps=2, data__caption_field=field)
    assert run(config) == 0
    assert read_log(tmp_path / "run")[-1]["skipped"] == {}


def test_a_field_that_is_not_there_is_named_with_those_that_are(tmp_path, capsys):
    files = [("0.jpg", encoded(quadrants(), "JPEG")), ("0.json", b'{"url": "x", "TEXT": "y"}')]
    write_tar(tmp_path / "data" / "0.tar", files)
    message = "json without 'caption' .it has 'url', 'TEXT': data.caption_field names the one to read"
    assert_refused(config_of(tmp_path, tmp_path / "data"), capsys, message)


def test_names_in_the_encoding_of_an_old_system_are_trained_on(tmp_path):
    files = [
        (f"caf\udce9-{i}.{end}", encoded(quadrants(), "JPEG") if end == "jpg" else b"a")
        for i in range(4)
        for end in ("jpg", "txt")
    ]
    write_tar(tmp_path / "data" / "0.tar", files)
    assert run(config_of(tmp_path, tmp_path / "data", train__steps=1)) == 0
    assert read_log(tmp_path / "run")[-1]["skipped"] == {}
