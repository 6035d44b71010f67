"""The pages that docs/generate.py writes say what the code says, and so do figures between markers."""

from __future__ import annotations

import dataclasses
import re

import pytest

from serve.settings import Settings
from tests.support.docs import DOCS, ROOT, program

generate = program("generate")
PAGES = generate.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_what_the_code_says(page):
    assert page.read_text(encoding="utf-8") == PAGES[page], "run python docs/generate.py"


def test_every_setting_of_the_server_is_described():
    text = (DOCS / "settings-server.md").read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"`HYPCLIP_{name.upper()}`" not in text] == []
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("args", "wrong"),
    [("steps: how many.", "rate"), ("steps: how many.\n        rate: how fast.\n        x: no.", "x")],
)
def test_a_field_without_a_description_and_a_description_without_a_field_are_named(args, wrong):
    @dataclasses.dataclass
    class Some:
        steps: int
        rate: float

    Some.__doc__ = f"Settings.\n\n    Args:\n        {args}\n    "
    with pytest.raises(KeyError, match=rf"Some: {wrong}"):
        generate.arguments_of(Some)


def test_types_and_defaults_are_in_words():
    page = generate.settings_of_a_run()
    for row in (
        "| `train.steps` | int > 0 | **required** |",
        "| `train.ema_decay` | float > 0, < 1 | – |",
        "| `data.max_bad_fraction` | float ≥ 0, ≤ 1 | `0.01` |",
        "| `train.trackers` | list of `tensorboard`, `wandb` | `[tensorboard]` |",
        "| `evaluate.retrieval.NAME.samples` | int ≥ 2 | `1000` |",
        "| `objective.edges.N.eta` | float > 0 | `1` |",
        "| `model.entailment.min_radius` | float | `0.1` |",
    ):
        assert row in page


def test_commands_have_the_options_of_their_parsers():
    page = generate.commands()
    assert "| `--shards` SHARDS … | shards whose images" in page
    assert "| `--to` `huggingface`, `onnx` (required) |" in page
    files = {f"train/{file.stem}.py" for file in (ROOT / "train").glob("*.py") if "def main(" in file.read_text()}
    assert [file for file in files if f"## python {file}\n" not in page] == []


def test_the_drawing_of_a_cone_is_what_its_program_draws():
    drawn = program("draw_cone").drawing()
    number = r"-?\d+\.\d"
    kept = (DOCS / "cone.svg").read_text(encoding="utf-8")
    assert re.sub(number, "#", kept) == re.sub(number, "#", drawn)
    # To a tenth and a bit: another processor may round the last digit another way.
    assert [float(x) for x in re.findall(number, kept)] == pytest.approx(
        [float(x) for x in re.findall(number, drawn)], abs=0.2
    )


def test_figures_come_from_what_was_recorded():
    text = "before\n<!-- bench: x -->\nold\n<!-- /bench -->\nafter\n"
    measured = {"x": {"rows": ["a 1"], "command": "python x.py", "date": "today", "commit": "abc", "machine": "M"}}
    new = generate.with_figures(text, measured)
    assert new.splitlines()[2:5] == ["```text", "a 1", "```"]
    assert "`python x.py`, today, commit abc, M." in new
    assert generate.with_figures(new, measured) == new
    with pytest.raises(KeyError):
        generate.with_figures(text, {})
