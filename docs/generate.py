"""Write the pages of docs/ that say what the code says: settings, commands and measured figures.

python docs/generate.py            writes them
python docs/generate.py --check    writes nothing; exit code 1 where a page is not what the code says

settings-training.md comes from the dataclasses that the config of a run fills, settings-server.md from the fields of
serve.settings.Settings, commands.md from the programs' parsers, benchmarks.md from benchmarks.json. In every page what
stands between `<!-- bench: NAME -->` and `<!-- /bench -->` is replaced by what docs/benchmarks.json has of it.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import annotated_types
import yaml
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypclip.objective.recipe import RECIPES, Recipe
from hypclip.training.settings import RunConfig
from serve.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = (
    "train.prepare_data", "train.pretrain", "train.evaluate", "train.zero_shot", "train.study", "train.embed",
    "train.embed_taxonomy", "train.prototypes", "train.hyperbolicity", "train.ask", "train.draw", "train.convert",
    "train.export", "serve.command",
)  # fmt: skip
MADE = "<!-- written by docs/generate.py -->"
BENCH = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and name the pages that would change")
    arguments = parser.parse_args(argv)
    stale = {page: text for page, text in pages().items() if not page.is_file() or page.read_text("utf-8") != text}
    for page, text in stale.items():
        sys.stdout.write(f"{page.relative_to(ROOT)} {'is not what the code says' if arguments.check else 'written'}\n")
        if not arguments.check:
            page.write_text(text, encoding="utf-8")
    return int(arguments.check and bool(stale))


def pages() -> dict[Path, str]:
    """Return the text that each page must have: those that are generated, and those with figures in them."""
    docs = ROOT / "docs"
    measured = json.loads((docs / "benchmarks.json").read_text("utf-8"))
    made = {
        "settings-training.md": settings_of_a_run(),
        "settings-server.md": settings_of_the_server(),
        "commands.md": commands(),
        "benchmarks.md": benchmarks(measured),
    }
    found = {docs / name: text for name, text in made.items()}
    for page in (ROOT / "README.md", *sorted(docs.glob("*.md"))):
        if page.name not in made:
            found[page] = with_figures(page.read_text("utf-8"), measured)
    return found


def with_figures(text: str, measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a page with what was measured between its markers.

    Raises:
        KeyError: a marker names a benchmark that was not recorded.
    """
    return BENCH.sub(lambda found: f"{found[1]}{_figures(measured[found[2]])}{found[3]}", text)


def _figures(one: Mapping[str, Any]) -> str:
    rows = "\n".join(one["rows"])
    return f"```text\n{rows}\n```\n\n`{one['command']}`, {one['date']}, commit {one['commit']}, {one['machine']}.\n"


def benchmarks(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page of all benchmarks, with the figures of those that were recorded."""
    parts = [
        "# Benchmarks",
        MADE,
        "`make bench` runs them all, writes `docs/benchmarks.json` and this page; `python "
        "tests/benchmarks/record.py NAME` runs one. Figures on other pages that are not in this file have the command "
        "that prints them beside them.",
    ]
    for file in sorted((ROOT / "tests" / "benchmarks").glob("bench_*.py")):
        name = file.stem.removeprefix("bench_")
        about = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
        figures = _figures(measured[name]).rstrip("\n") if name in measured else "Not recorded yet."
        parts += [f"## {name}", about, figures]
    return "\n\n".join(parts) + "\n"


# Settings of a run ----------------------------------------------------------------------------------------------------


def settings_of_a_run() -> str:
    """Return the page of every key that the YAML file of train/pretrain.py may have."""
    parts = [
        "# Settings of a training run",
        MADE,
        "Every key of a config of `train/pretrain.py`, as `key=value` on the command line names it. One without a "
        "default must be given. See [training](training.md) for how they are used, and "
        "[recipes](recipes.md) for the objective.",
        *_sections(RunConfig, "", "At the top"),
        f"## A recipe\n\n`objective` is a name ({', '.join(f'`{name}`' for name in RECIPES)}), a YAML file, or these "
        "keys. `base` names the recipe or the file that the others lie on top of. Where a key holds several "
        "mappings, in a list, theirs are below it.",
        *_sections(Recipe, "objective.", "objective"),
    ]
    return "\n\n".join(parts) + "\n"


def _sections(kind: type, prefix: str, title: str) -> Iterator[str]:
    """Yield the section of a dataclass, and those of the dataclasses in its fields."""
    described = arguments_of(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    rows, below = [], []
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        rows.append((f"`{name}`", _type(hint), _default_of(field), described[field.name]))
        inner = [one for one in _leaves(hint) if dataclasses.is_dataclass(one)]
        several = {dict: ".NAME", tuple: ".N"}.get(_origin(hint), "")
        for one in inner:
            below.append((one, f"{name}{several}.", f"{name}, {one.__name__.lower()}" if len(inner) > 1 else name))
    about = (inspect.getdoc(kind) or "").split("\n\nArgs:")[0].split("\n\nRaises:")[0]
    yield f"## {title}\n\n{about}\n\n{_table(('key', 'type', 'default', 'what it is'), rows)}"
    for one, deeper, named in below:
        yield from _sections(one, deeper, named)


def arguments_of(kind: type) -> dict[str, str]:
    """Return what the docstring of a dataclass, and those of what it inherits from, say of each field.

    Raises:
        KeyError: a field is not described, or what is described is no field.
    """
    found: dict[str, str] = {}
    for one in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        _, _, text = (inspect.cleandoc(one.__doc__ or "")).partition("Args:\n")
        for name, words in re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text.split("\n\n")[0], re.MULTILINE):
            found[name] = " ".join(words.split())
    fields = {field.name for field in dataclasses.fields(kind)}
    if wrong := fields ^ found.keys():
        raise KeyError(f"Args of {kind.__module__}.{kind.__qualname__}: {', '.join(sorted(wrong))}")
    return found


def _default_of(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return "" if dataclasses.is_dataclass(value) else _value(value)
    return "**required**" if field.default is dataclasses.MISSING else _value(field.default)


def _value(value: object) -> str:
    """Return a default as YAML has it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"`{value:.6g}`"
    if isinstance(value, str | Path):
        return f"`{value}`" if str(value) else "empty"
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix(chr(10)).split(chr(10))[0]}`"


def _origin(hint: Any) -> Any:
    return typing.get_origin(typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint)


def _leaves(hint: Any) -> Iterator[Any]:
    """Yield every class that a type is made of."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        yield from _leaves(inner[0])
    elif inner:
        for one in inner:
            yield from _leaves(one)
    elif isinstance(hint, type):
        yield hint


def _type(hint: Any, bounds: Iterable[Any] = ()) -> str:
    """Return a type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _type(inner[0], [*hint.__metadata__, *bounds])
    if origin is typing.Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin in (typing.Union, types.UnionType):
        kinds = [one for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(_type(one, bounds) for one in kinds))
    if origin is dict:
        return "mapping" if inner[1] is Any else f"by name: {_type(inner[1])}"
    if origin in (tuple, list) or inspect.isclass(origin):
        each = [_type(one) for one in inner if one is not Ellipsis]
        if origin is tuple and Ellipsis not in inner:
            return ", ".join(each)
        return "mapping" if issubclass(origin, Mapping) else f"list of {each[0]}"
    if dataclasses.is_dataclass(hint):
        return "keys below"
    names = {str: "text", bool: "`true`, `false`", int: "int", float: "float", Path: "path", SecretStr: "text", Any: ""}
    return f"{names.get(hint, getattr(hint, '__name__', str(hint)))}{_bounds(bounds)}"


def _bounds(metadata: Iterable[Any]) -> str:
    said = []
    for one in metadata:
        for bound in one if isinstance(one, annotated_types.GroupedMetadata) else [one]:
            for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
                if (value := getattr(bound, name, None)) is not None:
                    said.append(f" {sign} {value:,}" if isinstance(value, int) else f" {sign} {value:g}")
    return ",".join(said)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(head), "|".join("---" for _ in head)]
    lines += [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
    return "\n".join(f"| {lines[i]} |" if i != 1 else f"|{lines[i]}|" for i in range(len(lines)))


# Settings of the server -----------------------------------------------------------------------------------------------


def settings_of_the_server() -> str:
    """Return the page of every setting of the server."""
    options = {action.dest: action.option_strings[0] for action in parser_of("serve.command")._actions}
    rows = []
    for name, field in Settings.model_fields.items():
        option = f", `{options[name]}`" if name in options else ""
        text = field.description or ""
        rows.append(
            (
                f"`{ENV_PREFIX}{name.upper()}`{option}",
                _type(field.annotation, field.metadata),
                _value(field.default),
                text,
            )
        )
    return (
        f"# Settings of the server\n\n{MADE}\n\nThey are variables of the environment; some are options of "
        "`python -m serve` too, which win. Lists have commas between their items. A variable that begins with "
        f"`{ENV_PREFIX}` and is none of these changes nothing, and the server says so when it starts. See "
        f"[the server](server.md) for how they are used.\n\n"
        f"{_table(('variable', 'type', 'default', 'what it is'), rows)}\n"
    )


# Commands -------------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return the page of every program's options."""
    parts = [
        "# Commands",
        MADE,
        "What each program takes; `--help` says the same, and more of what it does. In a checkout they are "
        "called as here, and installed as `hypclip-…`, with - for _.",
    ]
    for module in PROGRAMS:
        called = "python -m serve" if module == "serve.command" else f"python {module.replace('.', '/')}.py"
        parts += [f"## {called}", *_options(parser_of(module))]
    return "\n\n".join(parts) + "\n"


def _options(parser: argparse.ArgumentParser, above: str = "") -> Iterator[str]:
    if not above:
        yield (parser.description or "").split("\n\n")[0].replace("\n", " ")
    rows, below = [], []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            below += list(action.choices.items())
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
        if action.nargs == 0 or not action.option_strings:
            value = ""
        elif action.choices:
            value = " " + ", ".join(f"`{one}`" for one in action.choices)
        else:
            value = f" {action.metavar or action.dest.upper()}{' …' if action.nargs in ('+', '*') else ''}"
        said = parser._get_formatter()._expand_help(action) if action.help else ""
        needed = " (required)" if action.required and action.option_strings else ""
        rows.append((f"{names}{value}{needed}", said))
    if rows:
        yield f"{f'`{above}`:' + chr(10) * 2 if above else ''}{_table(('option', 'what it is'), rows)}"
    for name, parser_below in below:
        yield from _options(parser_below, f"{above} {name}".strip())


class _Parsed(Exception):
    """Raised in the place of parsing, with the parser."""


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser that the main function of a module parses its command line with."""

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Parsed(parser)

    methods = {"parse_known_args": stop, "parse_known_intermixed_args": stop}
    program = importlib.import_module(module)
    with mock.patch.multiple(argparse.ArgumentParser, **methods):
        try:
            program.main([])
        except _Parsed as parsed:
            return typing.cast(argparse.ArgumentParser, parsed.args[0])
    raise TypeError(f"{module}.main parses no command line")


if __name__ == "__main__":
    sys.exit(main())
