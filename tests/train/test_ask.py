"""Questions to an index from the command line, of a model whose hierarchy is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from hypclip import checkpoint
from hypclip.indexing.units import space_of
from hypclip.model import HypCLIP
from hypclip.search import LocalStore, Points
from tests.support.models import tiny_encoder
from train.ask import main

PLACES = {"food": (0.3, 0.0), "a fruit": (0.7, 0.02), "a red apple": (1.2, 0.03), "a car": (0.6, 2.0)}
"""Radius and angle of each text, the picture of an apple lies beyond them."""


def at(radius: float, angle: float, dim: int) -> torch.Tensor:
    x = torch.zeros(dim)
    x[:2] = torch.sinh(torch.tensor(radius)) * torch.tensor([torch.tensor(angle).cos(), torch.tensor(angle).sin()])
    return x


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments that name a model and an index, a picture beside them."""
    with checkpoint.atomic_directory(tmp_path / "checkpoint") as target:
        checkpoint.save(tiny_encoder(entailment={"form": "plane"}), target)
    model = checkpoint.load(tmp_path / "checkpoint")
    vectors = torch.stack([at(*place, model.dim) for place in PLACES.values()] + [at(1.8, 0.05, model.dim)])
    ids = [f"concept/{text}" for text in PLACES] + ["apple.png"]
    metadata = [{"phrase": text} for text in PLACES] + [{"class": "red apple"}]
    with LocalStore(tmp_path / "index", create=True) as store:
        store.create_collection("default", space_of(model))
        store.upsert("default", Points(ids, vectors, ["text"] * 4 + ["image"], metadata))
    monkeypatch.setattr(
        HypCLIP, "embed_text", lambda self, texts: torch.stack([at(*PLACES[t], self.dim) for t in texts])
    )
    monkeypatch.setattr(HypCLIP, "embed_image", lambda self, _: at(1.8, 0.05, self.dim).unsqueeze(0))
    Image.new("RGB", (8, 8)).save(tmp_path / "apple.png")
    return ["--checkpoint", str(tmp_path / "checkpoint"), "--index", str(tmp_path / "index")]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.strip() for line in capsys.readouterr().out.splitlines() if line]


def test_a_picture_is_what_entails_it_the_most_specific_first(asked, tmp_path, capsys):
    assert main([*asked, "--image", str(tmp_path / "apple.png")]) == 0
    heading, *rest = lines(capsys)
    assert heading == f"the image {tmp_path / 'apple.png'} is, 3 in all:"
    assert [line.split("  ")[1] for line in rest] == ["a red apple", "a fruit", "food"]
    assert rest[0].startswith("1.200")


def test_a_text_has_instances_and_ancestors_and_a_way_to_the_root(asked, capsys):
    assert main([*asked, "--below", "food", "--above", "a fruit", "--way", "a red apple"]) == 0
    found = lines(capsys)
    assert found[0] == "'a fruit' is, 1 in all:"
    assert found[1] == "0.300  food"
    assert found[2] == "'food' entails, of texts, 2 in all:"
    assert found[3:5] == ["1.200  a red apple", "0.700  a fruit"]
    assert found[5:7] == ["'food' entails, of images, 1 in all:", "1.800  apple.png  (red apple)"]
    assert found[7] == "from 'a red apple' to the root lie, 3 in all:"
    assert [line.split("  ")[1] for line in found[8:]] == ["a fruit", "food", "[ROOT]"]


def test_nothing_is_said_so(asked, capsys):
    assert main([*asked, "--below", "a car"]) == 0
    assert lines(capsys) == ["'a car' entails, of texts, nothing", "'a car' entails, of images, nothing"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing is asked"),
        (["--image", "none.png"], "none.png"),
        (["--above", "food", "--collection", "other"], "other"),
    ],
)
def test_mistakes_are_named(asked, arguments, said, capsys, monkeypatch):
    monkeypatch.undo()
    assert main([*asked, *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_collection_of_another_rule_is_refused(asked, tmp_path, capsys):
    with checkpoint.atomic_directory(tmp_path / "cones") as target:
        checkpoint.save(tiny_encoder(), target)
    assert main(["--checkpoint", str(tmp_path / "cones"), *asked[2:], "--above", "food"]) == 1
    assert "cones of eta 1" in capsys.readouterr().err
