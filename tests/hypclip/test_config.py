from pathlib import Path

import pytest
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, build, read
from hypclip.errors import ConfigError


@dataclass(frozen=True, config=STRICT_KEYS)
class Wheel:
    radius: float
    spokes: PositiveInt = 8

    def __post_init__(self) -> None:
        if self.spokes == 13:
            raise ConfigError("13 spokes bring bad luck")


@dataclass(frozen=True, config=STRICT_KEYS)
class Car:
    name: str
    spare: Wheel
    wheels: tuple[Wheel, ...] = ()
    colour: str | None = None


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "car.yaml"
    path.write_text("name: mini\nspare: {radius: 0.5}\nlist: [1, 2]\n")
    return path


# Reading --------------------------------------------------------------------------------------------------------------


def test_overrides_lie_on_top_of_the_file(file):
    assert read(file) == {"name": "mini", "spare": {"radius": 0.5}, "list": [1, 2]}
    assert read(file, ["spare.radius=1e-3", "spare.spokes=12", "wheels=[{radius: 2}]", "list=[3]"]) == {
        "name": "mini",
        "spare": {"radius": 0.001, "spokes": 12},
        "wheels": [{"radius": 2}],
        "list": [3],
    }
    assert read(file, ["name=a", "name=b"])["name"] == "b"
    assert read(file, ["spare=null", "name="]) == {"name": None, "spare": None, "list": [1, 2]}


@pytest.mark.parametrize(
    "value",
    [
        "a/{000..099}.tar",
        "{000..099}.tar",
        "s3://bucket/{0..9}.tar",
        "pipe:cat 'it''s'/{0..9}.tar",
        r"C:\new\{0..9}.tar",
        "[a]/{0..1}.tar",
    ],
)
def test_patterns_of_shards_stay_as_they_are(file, value):
    assert read(file, [f"data.shards={value}"])["data"] == {"shards": value}


def test_an_empty_mapping_empties_what_is_there(file):
    assert read(file, ["spare={}"])["spare"] == {}
    assert read(file, ["spare={}", "spare.spokes=12"])["spare"] == {"spokes": 12}
    assert read(file, ["new.deep={}"])["new"] == {"deep": {}}


def test_a_value_may_hold_an_equals_sign(file):
    assert read(file, ["name=a=b"])["name"] == "a=b"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file .*/none.yaml"):
        read(tmp_path / "none.yaml")


@pytest.mark.parametrize("override", ["train.steps", "--steps=3", "=3", "-x=1"])
def test_overrides_that_are_none_are_named(file, override):
    with pytest.raises(ConfigError, match=f"cannot read '{override}': overrides are written key=value"):
        read(file, [override])


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (b"a: [1", ()),
        (b"a: ${nothing}", ()),
        (b"a: \x00", ()),
        (b"\xff\xfe\xff", ()),
        (b"5", ()),
        (b"a: 1", ["b={c: "]),
        (b"a: 1", ["b=${nothing}"]),
    ],
)
def test_what_cannot_be_read_is_a_config_error(tmp_path, text, overrides):
    path = tmp_path / "broken.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"cannot read .*/broken.yaml"):
        read(path, overrides)


def test_a_list_is_no_config(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold a mapping of settings, got a list"):
        read(path)


# Extending ------------------------------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> Path:
    """Write files by name without suffix; return the first."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_a_file_lies_on_top_of_what_it_extends(tmp_path):
    write(tmp_path / "low", lowest="name: a\nspare: {radius: 1, spokes: 9}\nlist: [1, 2]\nkind: {base: x}\n")
    write(tmp_path / "low", middle="extends: lowest.yaml\nspare: {radius: 2}\ncolour: red\n")
    path = write(tmp_path, top="extends: low/middle.yaml\nname: b\nspare: {spokes: 7}\nlist: [3]\nkind: y\n")
    want = {"name": "b", "spare": {"radius": 2, "spokes": 7}, "list": [3], "kind": "y", "colour": "red"}
    assert read(path) == want
    assert read(path, ["spare.radius=5", "colour=null"]) == want | {"spare": {"radius": 5, "spokes": 7}, "colour": None}
    assert read(tmp_path / "low" / "lowest.yaml")["kind"] == {"base": "x"}


def test_a_mapping_may_replace_a_name_and_be_replaced_by_null(tmp_path):
    path = write(tmp_path, top="extends: low.yaml\nkind: {base: x}\nspare: null\n", low="kind: y\nspare: {radius: 1}\n")
    assert read(path) == {"kind": {"base": "x"}, "spare": None}


def test_a_value_may_refer_to_one_of_another_file(tmp_path):
    path = write(tmp_path, top="extends: low.yaml\nname: b\n", low="name: a\ndir: runs/${name}\n")
    assert read(path)["dir"] == "runs/b"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"top": "extends: top.yaml"},
            r"^extends: .*/top.yaml extends itself, by way of .*/top.yaml: remove one extends$",
        ),
        (
            {"top": "extends: low.yaml", "low": "extends: ./top.yaml"},
            r"^extends: .*/top.yaml extends itself, by way of .*/top.yaml, .*/low.yaml: remove",
        ),
        ({"top": "extends: none.yaml"}, r"^there is no config file .*/none.yaml, which .*/top.yaml extends$"),
        ({"top": "extends: ''"}, r"^there is no config file .*, which .*/top.yaml extends$"),
        ({"top": "extends: [low.yaml]", "low": "a: 1"}, r"^.*/top.yaml: extends must be the name of a YAML file, got "),
        ({"top": "extends: 3"}, r"^.*/top.yaml: extends must be the name of a YAML file, got 3$"),
        ({"top": "extends: low.yaml", "low": "- 1"}, r"^.*/low.yaml must hold a mapping of settings, got a list$"),
        ({"top": "extends: low.yaml", "low": "a: [1"}, r"^cannot read .*/low.yaml: "),
        ({"top": "extends: ${nothing}"}, r"^cannot read .*/top.yaml: "),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path, files, message):
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path, **files))


# Building -------------------------------------------------------------------------------------------------------------


def test_plain_data_becomes_dataclasses():
    car = build(Car, {"name": "mini", "spare": {"radius": 1}, "wheels": [{"radius": 0.5, "spokes": 9}]})
    assert car == Car("mini", Wheel(1.0), (Wheel(0.5, 9),), None)
    assert isinstance(car.spare.radius, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nme": 1}, "^unknown key 'car.nme', did you mean 'name'\\?$"),
        ({"xyz": 1}, "^unknown key 'car.xyz', known: name, spare, wheels, colour$"),
        ({"spare": {"radius": 1, "spoke": 3}}, "^unknown key 'car.spare.spoke', did you mean 'spokes'\\?$"),
        ({"wheels": [{"radius": 1}, {"radius": 1, "x": 2}]}, "^unknown key 'car.wheels.1.x', known: radius, spokes$"),
        ({"spare": {}}, "^the config lacks 'car.spare.radius', which has no default$"),
        ({"spare": {"radius": "wide"}}, "^car.spare.radius: .*number.*, got 'wide'$"),
        ({"spare": {"radius": 1, "spokes": 0}}, "^car.spare.spokes: .*greater than 0, got 0$"),
        ({"spare": {"radius": 1, "spokes": 13}}, "^car.spare: 13 spokes bring bad luck$"),
        ({"spare": 3}, "^car.spare: .*, got 3$"),
        ({"name": 1, "colour": 2}, "^car.name: .*, got 1; car.colour: .*, got 2$"),
    ],
)
def test_mistakes_are_named_in_full(change, message):
    with pytest.raises(ConfigError, match=message):
        build(Car, {"name": "mini", "spare": {"radius": 1}, **change}, "car")


def test_the_top_of_a_config_has_no_prefix():
    with pytest.raises(ConfigError, match=r"^unknown key 'spair', did you mean 'spare'"):
        build(Car, {"name": "mini", "spare": {"radius": 1}, "spair": {}})


@pytest.mark.parametrize("data", [None, 3, [1], "name"])
def test_a_config_must_be_a_mapping(data):
    with pytest.raises(ConfigError, match=r"^model must be a mapping of settings, got"):
        build(Car, data, "model")
    with pytest.raises(ConfigError, match=r"^the config must be a mapping of settings, got"):
        build(Car, data)
