"""The picture of a taxonomy in a model whose places are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from hypclip import checkpoint
from hypclip.errors import InputError
from hypclip.taxonomy import Taxonomy
from tests.support.hierarchy import PERFECT, TREE, model_at
from tests.support.models import tiny_model
from train.draw import drawing, main


def dots(picture) -> dict[str, tuple[float, bool]]:
    """Return of each phrase its distance from the centre, the disk's radius being 1, and whether it is filled."""
    return {dot.title.split(", ")[0]: (math.hypot(*dot.at), not dot.hollow) for dot in picture.dots}


def test_distances_are_those_of_the_model_and_what_is_not_entailed_is_hollow():
    outside = "a pug"
    places = {**PERFECT, outside: (PERFECT[outside][0], *(-x for x in PERFECT[outside][1:]))}
    found = dots(drawing(model_at(places), Taxonomy(TREE)))
    assert set(found) == set(places)
    scale = math.atanh(found["a dog"][0]) / PERFECT["a dog"][0]
    for phrase, (distance, filled) in found.items():
        assert distance == pytest.approx(math.tanh(scale * places[phrase][0]), abs=1e-3)
        assert filled == (phrase != outside), phrase


def test_a_space_without_one_radius_is_refused():
    with pytest.raises(InputError, match="a disk is drawn of one hyperbolic space"):
        drawing(tiny_model(geometry="sphere"), Taxonomy(TREE))


def test_the_command_writes_a_file_and_names_what_is_wrong(tmp_path: Path, capsys):
    with checkpoint.atomic_directory(tmp_path / "model") as target:
        checkpoint.save(tiny_model(), target)
    (tmp_path / "tree.json").write_text(json.dumps(TREE))
    command = ["--checkpoint", str(tmp_path / "model"), "--output", str(tmp_path / "out.svg"), "--taxonomy"]
    assert main([*command, str(tmp_path / "tree.json")]) == 0
    assert (tmp_path / "out.svg").read_text().startswith("<svg")
    png = [*command[:3], str(tmp_path / "out.png"), "--taxonomy", str(tmp_path / "tree.json")]
    assert main(png) == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
