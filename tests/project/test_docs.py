"""README and docs: what they link to and name is there, and their settings are settings."""

from __future__ import annotations

import re

import pytest
import yaml

from hypclip.config import build
from hypclip.evaluation.suite import EvaluationConfig
from hypclip.objective.recipe import recipe_from
from hypclip.training.settings import WarmStartConfig
from hypclip.training.tuning import TuneConfig
from tests.support.docs import PAGES, ROOT, blocks

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
SETTINGS = (ROOT / "serve" / "settings.py").read_text(encoding="utf-8")
FOLDERS = ("hypclip", "train", "serve", "configs", "tests", "docker", "docs")


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\S+?\.md)\)", index)) == {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_every_page_is_in_the_navigation_of_the_site_once():
    def leaves(nav):
        values = nav.values() if isinstance(nav, dict) else nav
        return [nav] if isinstance(nav, str) else [page for one in values for page in leaves(one)]

    config = ROOT / "docs" / "site" / "mkdocs.yml"
    site = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert sorted(leaves(site["nav"])) == sorted(p.name for p in (ROOT / "docs").glob("*.md"))
    assert (config.parent / site["docs_dir"]).resolve() == ROOT / "docs"


def test_pages_of_the_site_link_to_nothing_outside_of_it():
    pages = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
    assert [(name, link) for name, text in pages.items() for link in re.findall(r"\]\((\.\.?/\S*)\)", text)] == []


def test_the_changelog_only_adds():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^#+ .*", text, re.MULTILINE) == ["# Changelog", "## Unreleased", "### Added"]


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
    for block in blocks(page, "bash", "console"):
        for command in re.split(r"\n(?!\s)", block.code.replace("\\\n", " ")):
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
def test_yaml_blocks_are_settings(page):
    for block in blocks(page, "yaml"):
        for key, value in yaml.safe_load(block.code).items():
            if key == "objective":
                recipe_from(value)
            elif key in ("warm_start", "tune"):
                build(WarmStartConfig if key == "warm_start" else TuneConfig, value)
            else:
                build(EvaluationConfig, {key: value})
