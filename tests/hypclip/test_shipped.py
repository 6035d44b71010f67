"""Configs by name."""

from __future__ import annotations

import argparse

import pytest

from hypclip import shipped
from tests.support.training import ROOT
from train import pretrain


def test_a_name_is_a_file_of_one_of_the_folders():
    found = shipped.parse(argparse.ArgumentParser(), ["--config", "quickstart"], "", "pretrain")
    assert found.config == ROOT / "configs" / "quickstart.yaml"
    folder = ROOT / "configs" / "evaluate"
    assert shipped.named("evaluate") == {name: folder / f"{name}.yaml" for name in ("hierarchical", "quickstart")}


@pytest.mark.parametrize("given", ["own.yaml", "folder/own.yml", "config"])
def test_a_file_is_a_file(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text("")
    assert str(shipped.parse(argparse.ArgumentParser(), ["--config", given], "").config) == given


def test_without_a_config_their_names_are_listed_with_a_line_each(capsys):
    with pytest.raises(SystemExit) as ended:
        pretrain.main([])
    assert ended.value.code == 2
    head, *lines = capsys.readouterr().err.splitlines()
    assert head == "give --config, a YAML file or one of these names:"
    assert len(lines) == len(list((ROOT / "configs" / "pretrain").glob("*.yaml"))) + 1
    assert lines[0] == (
        "  quickstart      The quickstart: a small hyperbolic model trained on scenes of drawings, on two CPU cores."
    )


def test_of_an_unknown_name_the_nearest_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        pretrain.main(["--config", "hypclip_vits"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: no config is called 'hypclip_vits': did you mean hypclip_vit_s?\n"
