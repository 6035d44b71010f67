"""The picture of a taxonomy in a model whose places are known."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from hypclip import checkpoint
from hypclip.errors import InputError
from hypclip.taxonomy import Taxonomy
from tests.support.hierarchy import PERFECT, TREE, model_at
from tests.support.models import tiny_model
from train.draw import SIDE, drawing, main

CIRCLE = re.compile(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" stroke="(\S+)" fill="(\S+)"><title>(.+?): √c')


def circles(svg: str) -> dict[str, tuple[float, float, bool]]:
    """Return of each phrase its distance from the centre, its angle, and whether it is filled."""
    found = {}
    for x, y, stroke, fill, phrase in CIRCLE.findall(svg):
        dx, dy = float(x) - SIDE / 2, float(y) - SIDE / 2
        found[phrase] = (math.hypot(dx, dy), math.atan2(dy, dx), stroke == fill)
    return found


def test_distances_are_those_of_the_poincare_disk_and_what_is_not_entailed_is_hollow():
    outside = "a pug"
    places = {**PERFECT, outside: (PERFECT[outside][0], *(-x for x in PERFECT[outside][1:]))}
    found = circles(drawing(model_at(places), Taxonomy(TREE)))
    assert set(found) == set(places)
    unit = found["a dog"][0] / math.tanh(PERFECT["a dog"][0] / 2)
    for phrase, (distance, _, filled) in found.items():
        assert distance == pytest.approx(unit * math.tanh(places[phrase][0] / 2), abs=0.2)
        assert filled == (phrase != outside), phrase


def test_what_is_general_is_in_the_middle_of_what_is_below_it():
    found = circles(drawing(model_at(PERFECT), Taxonomy(TREE)))
    below = sorted(found[child][1] for child, parent in TREE if parent == "a dog")
    assert found["a dog"][1] == pytest.approx(sum(below) / len(below), abs=1e-2)


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
    assert main([*command, "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
