import json
import math
from pathlib import Path

import pytest

from hypclip.training.monitoring.log import MetricsLog


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path) -> Path:
    """The log of a run that came to step 30."""
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    for step in (10, 20, 30):
        log.write({"step": step, "loss": step / 4})
    return tmp_path / "run" / "metrics.jsonl"


def test_one_object_a_line(path):
    assert lines(path) == [{"step": 10, "loss": 2.5}, {"step": 20, "loss": 5.0}, {"step": 30, "loss": 7.5}]
    assert path.read_text().endswith("}\n")


def test_every_line_is_on_disk_at_once(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1}]
    log.write({"step": 2})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "loss": math.nan, "lr": math.inf, "ok": 1e-300, "skipped": {"no caption": 3}})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "lr": None,
        "ok": 1e-300,
        "skipped": {"no caption": 3},
    }


def test_a_resumed_run_drops_what_came_after(path):
    log = MetricsLog(path, step=20)
    assert [line["step"] for line in lines(path)] == [10, 20]
    log.write({"step": 25, "loss": 0.0})
    assert [line["step"] for line in lines(path)] == [10, 20, 25]


def test_a_run_started_afresh_begins_a_new_log(path):
    MetricsLog(path).write({"step": 1})
    assert lines(path) == [{"step": 1}]


def test_a_run_resumed_without_a_log_begins_one(tmp_path):
    MetricsLog(tmp_path / "metrics.jsonl", step=20).write({"step": 21})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 21}]


@pytest.mark.parametrize("cut", [1, 2, 10, 23])
def test_a_half_written_last_line_is_survived(path, cut):
    """Killed while writing: the last line lacks its end. The next line must not be glued to it."""
    content = path.read_text()
    path.write_text(content[:-cut])
    log = MetricsLog(path, step=30)
    log.write({"step": 40})
    kept = [10, 20, 30, 40] if cut == 1 else [10, 20, 40]
    assert [line["step"] for line in lines(path)] == kept


def test_a_line_that_is_none_costs_no_other_line(path):
    """A byte order mark of an editor, and what a power cut leaves in the middle."""
    first, second, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([b"\xef\xbb\xbf" + first, second, b"\0" * 20, b"[1]", b"{}", b"\xff", third, b""]))
    MetricsLog(path, step=30).write({"step": 40})
    assert [line["step"] for line in lines(path)] == [10, 20, 30, 40]


def test_a_kill_while_the_log_is_cut_leaves_it_as_it_was(path, monkeypatch):
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        MetricsLog(path, step=20)
    assert path.read_bytes() == before
