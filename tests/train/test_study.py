"""Several configs over several seeds, and the table of what they reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from hypclip.config import build
from tests.support.training import run_config, write_config, write_shards
from train import study
from train.study import Run, StudyConfig, main, table


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def study_of(folder: Path, shards: Path, names: Sequence[str] = ("clip", "meru"), **changes: object) -> Path:
    """Write a study of runs of two steps, scored by retrieval."""
    for name in names:
        config = run_config(folder / "run", shards, objective=name, data__workers=0, train__steps=2)
        write_config(folder / f"{name}.yaml", config)
    scored = {"retrieval": {"pairs": {"shards": str(shards), "samples": 8}}}
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(scored))
    settings = {
        "configs": {name: str(folder / f"{name}.yaml") for name in names},
        "seeds": [0, 1],
        "evaluate": str(folder / "evaluate.yaml"),
        "tables": {"Retrieval": {"R@1 %": "pairs/image_to_text_r1"}, "More": {"nothing": "pairs/none"}},
        "output_dir": str(folder / "runs"),
        "results": str(folder / "results.jsonl"),
        "table": str(folder / "table.md"),
        **changes,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder / "study.yaml"


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_each_config_is_trained_with_each_seed_once(tmp_path, shards, capsys):
    config = study_of(tmp_path, shards, one_seed=["meru"])
    assert main(["--config", str(config), "--jobs", "2"]) == 0
    assert sorted((one["name"], one["seed"]) for one in lines_of(tmp_path)) == [("clip", 0), ("clip", 1), ("meru", 0)]
    printed = capsys.readouterr().out
    written = (tmp_path / "table.md").read_text()
    assert written.strip() in printed
    assert [line for line in written.splitlines() if line.startswith("#")] == ["## Retrieval", "## More"]
    assert [row.split(" | ")[:2] for row in written.splitlines()[4:6]] == [["| clip", "2"], ["| meru", "1"]]
    (tmp_path / "table.md").write_text("## of an earlier time")
    # What is there is not run again; a config that has changed is, anew.
    assert main(["--config", str(config)]) == 0
    assert len(lines_of(tmp_path)) == 3
    assert [file.name for file in tmp_path.glob("table.md*")] == ["table.md"]
    assert (tmp_path / "table.md").read_text() == written
    changed = tmp_path / "meru.yaml"
    changed.write_text(changed.read_text().replace("steps: 2", "steps: 3"))
    assert main(["--config", str(config)]) == 0
    assert [one["name"] for one in lines_of(tmp_path)[3:]] == ["meru"]
    (tmp_path / "table.md").write_text("of somebody else")
    assert main(["--config", str(config), "--table-only"]) == 0
    assert len(list(tmp_path.glob("table.md*"))) == 2
    assert (tmp_path / "runs" / "meru-0" / "checkpoints" / "step-00000003").is_dir()


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, shards, capsys):
    config = study_of(tmp_path, shards, seeds=[0])
    broken = tmp_path / "clip.yaml"
    broken.write_text(broken.read_text().replace(str(shards), str(tmp_path / "nowhere")))
    assert main(["--config", str(config)]) == 1
    assert [one["name"] for one in lines_of(tmp_path)] == ["meru"]
    assert "clip, seed 0: failed: pretrain.py ended with 1: error: " in capsys.readouterr().err
    written = (tmp_path / "table.md").read_text()
    assert "| clip |" not in written
    assert written.endswith("Not run yet, by seed: clip 0.\n")


def test_the_table_has_the_mean_and_the_deviation_over_seeds(tmp_path):
    columns = {"top-1 %": "a/top1", "TIE": "a/tie", "AP": "b/ap"}
    paths = dict.fromkeys(("evaluate", "output_dir", "results", "table"), str(tmp_path))
    config = build(StudyConfig, {"configs": {"one": "one.yaml", "two": "two.yaml"}, "tables": {"": columns}, **paths})
    runs = [Run(name, Path(), seed, "d", Path()) for name, seed in (("one", 0), ("one", 1), ("two", 0))]
    found = {
        ("one", 0, "d"): {"a/top1": 0.2, "a/tie": 3.0, "b/ap": 0.5},
        ("one", 1, "d"): {"a/top1": 0.4, "a/tie": 4.0, "b/ap": 0.5},
        ("two", 0, "d"): {"a/top1": 0.25},
        ("two", 1, "d"): {"a/top1": 0.9},  # of no run of the study
        ("one", 0, "of other settings"): {"a/top1": 0.9},
    }
    assert table(config, columns, runs, found).splitlines() == [
        "| | seeds | top-1 % | TIE | AP |",
        "|---|---|---|---|---|",
        "| one | 2 | 30.0 ± 14.1 | 3.50 ± 0.71 | 0.500 ± 0.000 |",
        "| two | 1 | 25.0 | – | – |",
    ]


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--only", "clop"], "'clop' is no row of the study, which has clip, meru"),
        ({"one_seed": ["clop"]}, [], "'clop' is no row of the study"),
        ({}, ["--jobs", "0"], "--jobs must be at least 1, got 0"),
        ({"seeds": []}, [], "seeds"),
        ({"configs": {"clip": "nowhere.yaml"}}, [], "there is no config file nowhere.yaml"),
        ({"evaluate": "nowhere.yaml"}, [], "there is no config file nowhere.yaml"),
    ],
)
def test_bad_input_is_named(tmp_path, shards, capsys, changes, arguments, message):
    config = study_of(tmp_path, shards, **changes)
    assert main(["--config", str(config), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_file_of_results_that_is_none_is_named(tmp_path, shards, capsys):
    config = study_of(tmp_path, shards)
    (tmp_path / "results.jsonl").write_text('{"name": "clip"}\n')
    assert main(["--config", str(config), "--table-only"]) == 1
    assert "results.jsonl, line 1: not a result of a study ('scores')" in capsys.readouterr().err


def test_the_studys_own_file_names_configs_that_there_are(monkeypatch):
    monkeypatch.chdir(Path(study.__file__).parent.parent)
    config = build(StudyConfig, study.read(Path("configs/study/study.yaml"), (), StudyConfig))
    names = {path.stem for path in Path("configs/study").glob("*.yaml")} - {"plain", "study"}
    assert set(config.configs) == names
    assert len({run.digest for run in study._planned(config)}) == len(names)
