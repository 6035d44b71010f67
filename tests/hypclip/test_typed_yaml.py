"""Texts and paths in YAML and in overrides, spelled as people spell them."""

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, UserPath, UserPlaces, build, read
from hypclip.errors import ConfigError


@dataclass(frozen=True, config=STRICT_KEYS)
class Task:
    shards: UserPlaces
    classes: UserPath | None = None
    templates: list[str] = field(default_factory=list)
    samples: int | None = None


@dataclass(frozen=True, config=STRICT_KEYS)
class Run:
    name: str
    output_dir: UserPath
    data: Task
    steps: PositiveInt = 1
    objective: str | Mapping[str, Any] = "clip"
    tasks: dict[str, Task] = field(default_factory=dict)
    note: str | None = None


BASE = "name: base\noutput_dir: out\ndata: {shards: a.tar}\n"


def run(tmp_path: Path, *overrides: str, text: str = BASE) -> Run:
    file = tmp_path / "run.yaml"
    file.write_text(text, newline="")
    return build(Run, read(file, overrides, Run))


NAMES = [
    "20240101",
    "007",
    "1e3",
    "1.50",
    "0x1F",
    "1_000",
    "true",
    "no",
    "on",
    "2024-01-01",
    "12:30:00",
    ".inf",
    "-",
    "=",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_like_a_number_or_a_date_is_a_text_where_one_is_wanted(tmp_path, name):
    got = run(
        tmp_path, f"name={name}", f"output_dir={name}", f"data.shards={name}", f"note={name}", f"objective={name}"
    )
    assert (got.name, got.output_dir, got.data.shards, got.note, got.objective) == (name, Path(name), name, name, name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in "-="])
def test_in_a_file_too(tmp_path, name):
    text = f"name: {name}\noutput_dir: {name}   # of today\ndata: {{shards: [{name}, x], templates: [{name}]}}\n"
    got = run(tmp_path, text=text + f"tasks:\n  {name}: {{shards: {name}}}\n")
    assert (got.name, got.output_dir, got.data.shards, got.data.templates) == (name, Path(name), [name, "x"], [name])
    assert got.tasks == {name: Task(name)}


@pytest.mark.parametrize("written, meant", [("010", 10), ("-010", -10), ("0_10", 10), ("0777", 777), ("0x10", 16)])
def test_a_number_is_the_one_that_people_mean(tmp_path, written, meant):
    """YAML 1.1 reads 010 as 8."""
    assert run(tmp_path, f"data.samples={written}").data.samples == meant
    assert run(tmp_path, text=BASE.replace("a.tar", f"a.tar, samples: {written}")).data.samples == meant


def test_a_time_is_no_number(tmp_path):
    with pytest.raises(ConfigError, match=r"^data.samples: .*got '1:30'$"):
        run(tmp_path, "data.samples=1:30")


@pytest.mark.parametrize("override", ["tasks=[a]", "data=[a]", "tasks.a=[b]"])
def test_a_list_in_place_of_a_mapping_is_named(tmp_path, override):
    with pytest.raises(
        ConfigError, match=rf"^cannot put '{re.escape(override)}' on top of \S*run.yaml, which has a mapping"
    ):
        run(tmp_path, override, text=BASE + "tasks: {a: {shards: x}}\n")


def test_numbers_stay_numbers(tmp_path):
    got = run(tmp_path, "steps=007", "data.samples=1000", "tasks.2024.shards=1", "tasks.2024.samples=5")
    assert (got.steps, got.data.samples, got.tasks) == (7, 1000, {"2024": Task("1", samples=5)})
    with pytest.raises(ConfigError, match=r"^steps: .*got 'many'$"):
        run(tmp_path, "steps=many")


@pytest.mark.parametrize(
    "value",
    [
        "{a,b}/0.tar", "a/{000..099}.tar", "{a,b}", "*.tar", "*/{0..9}.tar", "[0-9]/x.tar", "[a]{0..1}.tar",
        "a #b/c.tar", "@x", "%x", "&x", "!x", "`x`", "| x", "a, b", "a=b", "it's", "C:\\new\\0.tar", "s3://b/{0..9}.tar",
        "a:b", "a\tb", "pipe:cat 'it''s'/{0..9}.tar", "a b c", "x]", "x}", "?", "ä ö",
    ],
)  # fmt: skip
def test_patterns_and_odd_names_are_taken_as_they_are(tmp_path, value):
    got = run(tmp_path, f"data.shards={value}", f"name={value}", f"output_dir={value}")
    assert (got.data.shards, got.name, got.output_dir) == (value, value, Path(value))


def test_lists_and_mappings_stay_what_they_are(tmp_path):
    got = run(tmp_path, "data.shards=[a.tar, 007, '{0..1}.tar']", "objective={base: meru, 1: 2}")
    assert got.data.shards == ["a.tar", "007", "{0..1}.tar"]
    assert got.objective == {"base": "meru", "1": 2}
    assert run(tmp_path, 'data.templates=["a {}", 5]').data.templates == ["a {}", "5"]
    assert run(tmp_path, "objective.base=x", text=BASE + "objective: {eta: 1}\n").objective == {"eta": 1, "base": "x"}


def test_patterns_in_a_list_need_no_quotes(tmp_path):
    got = run(tmp_path, "data.shards=[a/{0..9}.tar, {b,c}/0.tar,007, d/[0-9,].tar]")
    assert got.data.shards == ["a/{0..9}.tar", "{b,c}/0.tar", "007", "d/[0-9,].tar"]
    assert run(tmp_path, "data.shards=[a,b]/{0..9}.tar").data.shards == "[a,b]/{0..9}.tar"


def test_quotes_are_yamls(tmp_path):
    got = run(tmp_path, "name='a: b'", 'note="a\\tb"', "data.shards='it''s'")
    assert (got.name, got.note, got.data.shards) == ("a: b", "a\tb", "it's")


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("name=a: b", r"""name: a: b is no text .*'name="a: b"'$"""),
        ("output_dir=runs: x", r"""output_dir: runs: x is no text .*'output_dir="runs: x"'$"""),
        ("name=a:", r"""'name="a:"'$"""),
        ('name="a', r"""'name="a"'$"""),
        ("name='a", "name: 'a is no text"),
        ("data.shards=[a.tar, b.tar", "data.shards: \\[a.tar, b.tar is no text"),
        ("objective={base: x", "objective: {base: x is no text"),
        (
            "data.templates=[a, b",
            "cannot read .*run.yaml with the override 'data.templates=\\[a, b', whose value is no",
        ),
        ("steps={", "cannot read .*run.yaml with the override 'steps={', whose value is no YAML"),
    ],
)
def test_a_text_without_its_quotes_is_named(tmp_path, override, shown):
    with pytest.raises(ConfigError, match=shown):
        run(tmp_path, override)


def test_the_way_out_that_is_shown_works(tmp_path):
    assert run(tmp_path, 'name="a: b"').name == "a: b"


# Nothing, and home ----------------------------------------------------------------------------------------------------


def test_nothing_is_nothing(tmp_path):
    got = run(tmp_path, "note=null", "data.classes=~", text=BASE + "note: x\n")
    assert (got.note, got.data.classes) == (None, None)
    for override in ("name=null", "name="):
        with pytest.raises(ConfigError, match=r"^name: .*got None$"):
            run(tmp_path, override)


def test_a_leading_tilde_is_home_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    got = run(
        tmp_path, "output_dir=~/x", "data.shards=~/a/{0..9}.tar", "data.classes=~/c.json", "tasks.a.shards=[~/b, c]"
    )
    assert (got.output_dir, got.data.classes) == (Path("/home/me/x"), Path("/home/me/c.json"))
    assert (got.data.shards, got.tasks["a"].shards) == ("/home/me/a/{0..9}.tar", ["/home/me/b", "c"])
    got = run(tmp_path, text="name: ~x\noutput_dir: ~\ndata:\n  shards: [~/a, s3://~/b]\n  classes: ~\n")
    assert (got.name, got.output_dir, got.data) == ("~x", Path("/home/me"), Task(["/home/me/a", "s3://~/b"], None))
    assert run(tmp_path, "output_dir=~").output_dir == Path("/home/me")


def test_a_file_may_extend_one_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "base.yaml").write_text(BASE.replace("base", "20240101"))
    assert run(tmp_path, text="extends: ~/base.yaml\n").name == "20240101"


# Files as editors save them -------------------------------------------------------------------------------------------


def test_what_lies_around_a_value_stays(tmp_path):
    text = '# 1: 2\r\nname: 007\t# "x"\r\noutput_dir: runs/${name}\r\ndata:\r\n- &a x\r\n'.replace(
        "- &a x", "  shards: 1"
    )
    got = run(tmp_path, text=text)
    assert (got.name, got.output_dir, got.data.shards) == ("007", Path("runs/007"), "1")
    got = run(tmp_path, text="name: it's\noutput_dir: |\n  5\ndata: {shards: &a 5, classes: *a}\n")
    assert (got.name, got.output_dir) == ("it's", Path("5\n"))


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "low.yaml").write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    (tmp_path / "top.yaml").write_bytes(b"\xef\xbb\xbfextends: low.yaml\nname: top\n")
    got = build(Run, read(tmp_path / "top.yaml", (), Run))
    assert (got.name, got.output_dir) == ("top", Path("out"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "run.yaml").write_bytes(BASE.encode(encoding))
    with pytest.raises(ConfigError, match=r"cannot read .*run.yaml: .* is no UTF-8 but UTF-16.*save it again as UTF-8"):
        read(tmp_path / "run.yaml")
