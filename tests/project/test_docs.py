"""README and docs: what they link to and name is there, and their code is code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.training import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
SETTINGS = (ROOT / "serve" / "settings.py").read_text(encoding="utf-8")
FOLDERS = ("hypclip", "train", "serve", "configs", "tests", "docker", "docs")


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page that are marked as one of these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\S+?\.md)\)", index)) == {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@each_page
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    lost = [link for link in links if not link.startswith("http") and not (page.parent / link.split("#")[0]).exists()]
    assert not lost


@each_page
def test_files_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w\.(?:py|yaml|md|sbatch|jsonl)\b", text)
    assert not [name for name in named if not (ROOT / name).exists()]


@each_page
def test_options_in_commands_are_those_of_the_program(page):
    for block in blocks(page, "bash"):
        for command in re.split(r"\n(?!\s)", block.replace("\\\n", " ")):
            command = command.split("#")[0]
            script = re.search(r"\b(train/\w+\.py|-m serve)\b", command)
            if script is None:
                continue
            file = ROOT / ("serve/command.py" if script[1] == "-m serve" else script[1])
            source = file.read_text(encoding="utf-8")
            for option in re.findall(r"(?<=\s)--[\w-]+", command[script.end() :]):
                field = rf"^    {option.removeprefix('--').replace('-', '_')}: "
                setting = script[1] == "-m serve" and re.search(field, SETTINGS, re.MULTILINE)
                shipped = option == "--config" and "shipped.parse(" in source
                assert f'"{option}"' in source or setting or shipped, f"{page.name}: {option} of {script[1]}"


@each_page
def test_python_blocks_compile(page):
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


@each_page
def test_yaml_blocks_are_mappings(page):
    for code in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(code), dict)
