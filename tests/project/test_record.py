"""What benchmarks print is kept with where and when it was measured."""

from __future__ import annotations

import json
import re

from tests.benchmarks import record
from tests.support.docs import DOCS, PAGES, ROOT


def test_rows_are_kept_and_those_of_others_stay(tmp_path, capsys):
    (tmp_path / "bench_one.py").write_text("print('what  1.0')\nprint('more  2.0')\nprint()\n")
    (tmp_path / "kept.json").write_text('{"other": {"rows": ["3.0"]}}')
    assert record.main(["one", "--output", str(tmp_path / "kept.json")], tmp_path) == 0
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["other"] == {"rows": ["3.0"]}
    assert kept["one"]["rows"] == ["what  1.0", "more  2.0"]
    assert kept["one"]["command"] == "python tests/benchmarks/bench_one.py"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["one"]["date"])
    assert {"machine", "commit"} <= kept["one"].keys()
    assert "what  1.0" in capsys.readouterr().out


def test_one_that_fails_is_named_and_not_kept(tmp_path, capsys):
    (tmp_path / "bench_bad.py").write_text("print('BROKEN')\nraise SystemExit(1)\n")
    (tmp_path / "bench_good.py").write_text("print('fine')\n")
    assert record.main(["bad", "good", "--output", str(tmp_path / "kept.json")], tmp_path) == 1
    assert list(json.loads((tmp_path / "kept.json").read_text())) == ["good"]
    assert "not recorded: bad" in capsys.readouterr().err


def test_make_bench_records_every_benchmark():
    (line,) = re.findall(r"^BENCHES := (.*(?:\\\n.*)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    files = {file.stem.removeprefix("bench_") for file in (ROOT / "tests" / "benchmarks").glob("bench_*.py")}
    assert sorted(line.replace("\\", "").split()) == sorted(files)


def test_what_is_recorded_is_shown_on_a_page():
    shown = {name for page in PAGES for name in re.findall(r"<!-- bench: (\w+) -->", page.read_text(encoding="utf-8"))}
    assert set(json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))) == shown
