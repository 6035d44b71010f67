"""The code of README and docs runs, in a folder laid out as the pages say, with a tiny model in it."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import hypclip
from hypclip.indexing.units import space_of
from hypclip.search import LocalStore, Points
from tests.support.docs import DOCS, PAGES, Block, blocks
from tests.support.ports import free_port
from tests.support.processes import Server, start_module, tiny_checkpoint
from tests.support.published import peer_weights

EVERY = [(page, block) for page in PAGES for block in blocks(page, "python", "bash", "console")]
ADDRESS = "127.0.0.1:8000"
RUNNING = {"README.md": ("curl",), "server.md": ("OpenAI", "-m serve"), "search.md": ("Client(",)}
"""Blocks that speak to a server: what they have in them, by page."""


def test_what_is_not_run_says_why():
    marked = [(page.name, block) for page, block in EVERY if block.marker]
    assert [f"{name}:{block.line}" for name, block in marked if len(block.reason.split()) < 2] == []
    never = [name for name, block in marked if block.marker == "not run"]
    assert len(never) <= 4
    assert len(EVERY) - len(never) >= 10
    fences = sum(page.read_text(encoding="utf-8").count("\n```") for page in PAGES)
    assert fences == 2 * sum(len(blocks(page, "python", "bash", "console", "yaml", "text", "json")) for page in PAGES)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory) -> Path:
    """A folder with everything that the pages name: never changed, each page has a copy."""
    home = tmp_path_factory.mktemp("home")
    run = home / "runs" / "quickstart"
    tiny_checkpoint(run / "checkpoint")
    model = hypclip.load(run / "checkpoint")
    picture = Image.new("RGB", (48, 40), (200, 30, 30))
    for name in ("picture.png", "apple.png", "photo.jpg"):
        picture.save(home / name)
    texts = ["a red apple", "a fruit", "food", "an animal"]
    points = torch.cat([model.embed_text(texts), model.embed_image([picture])])
    modality = ["text"] * len(texts) + ["image"]
    with LocalStore(run / "index", create=True) as store:
        store.create_collection("default", space_of(model))
        store.upsert(
            "default", Points([*texts, "picture"], points, modality, [{"text": text} for text in [*texts, ""]])
        )
    for key in ("dog", "cat"):
        (home / "ROOT" / key).mkdir(parents=True)
        picture.save(home / "ROOT" / key / "1.png")
    (home / "classes.json").write_text(json.dumps({"dog": "dog", "cat": "cat"}))
    (home / "edges.json").write_text(json.dumps([["dog", "animal"], ["cat", "animal"]]))
    captions = [f"a {look} {name}" for look in ("red", "old", "wet", "small") for name in [*texts, "dog", "cup", "car"]]
    (home / "captions.txt").write_text("\n".join(captions))
    shutil.copytree(run, home / "runs" / "x")
    return home


@pytest.fixture
def home(laid_out, tmp_path) -> Path:
    """A folder for the blocks of one page."""
    return shutil.copytree(laid_out, tmp_path / "home")


@pytest.fixture(scope="module")
def server(laid_out, tmp_path_factory) -> Iterator[Server]:
    """The server that docs/server.md starts."""
    home = shutil.copytree(laid_out, tmp_path_factory.mktemp("server") / "home")
    (command,) = (line for block in blocks(DOCS / "server.md", "bash") for line in commands(block) if "serve" in line)
    assert command[:3] == ["python", "-m", "serve"]
    server = start_module(command[3:], home / "log", free_port(), home, HYPCLIP_BACKEND="torch", HYPCLIP_WORKERS="1")
    try:
        yield server.wait_until_ready()
    finally:
        server.end()


def commands(block: Block) -> list[list[str]]:
    """Return the command lines of a block, split as a shell does; of a console, those behind a $."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_commands(block: Block, address: str) -> None:
    """Run what a block tells a shell to: our programs in this process, which saves their imports."""
    for words in commands(block):
        if words[0] == "python" and words[1].startswith("train/"):
            program = importlib.import_module(words[1].removesuffix(".py").replace("/", "."))
            assert program.main(words[2:]) == 0, words
            continue
        assert words[0] == "curl", f"the test does not know how to run {words}"
        asked = [word.replace(ADDRESS, address) for word in words]
        done = subprocess.run([*asked, "--fail-with-body"], capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert json.loads(done.stdout)


def run_python(page: Path, block: Block, names: dict[str, object], address: str) -> None:
    code = "\n" * block.line + block.code.replace(ADDRESS, address)
    exec(compile(code, str(page), "exec"), names)


def run_blocks(page: Path, markers: tuple[str, ...], home, request, monkeypatch) -> None:
    """Run a page's blocks in order; those of Python share their variables."""
    monkeypatch.chdir(home)
    names: dict[str, object] = {}
    for block in (block for other, block in EVERY if other == page and block.marker in markers):
        address = ADDRESS
        if any(word in block.code for word in RUNNING.get(page.name, ())):
            address = f"127.0.0.1:{request.getfixturevalue('server').port}"
        if "hycoclip_vit_s.pth" in block.code:
            torch.save({"model": peer_weights("hycoclip")}, home / "hycoclip_vit_s.pth")
        if "-m serve" in block.code:
            continue  # the server runs, which the fixture has waited for
        if block.language == "python":
            run_python(page, block, names, address)
        else:
            run_commands(block, address)


def pages_with(marker: str) -> list:
    """The pages that have such blocks."""
    found = {page for page, block in EVERY if block.marker == marker}
    return [pytest.param(page, id=page.name) for page in PAGES if page in found]


@pytest.mark.parametrize("page", pages_with(""))
def test_the_blocks_of_a_page_run(page, home, request, monkeypatch, capsys):
    run_blocks(page, ("",), home, request, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"))
def test_the_blocks_of_a_page_run_with_the_slow_ones(page, home, request, monkeypatch, capsys):
    run_blocks(page, ("", "slow"), home, request, monkeypatch)


def test_a_block_that_does_not_run_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NameError):
        run_python(tmp_path / "a.md", Block("python", "nothing\n", "", "", 1), {}, ADDRESS)
    for line in ("python train/export.py none out --to onnx", "curl -s 127.0.0.1:1/embed", "make tea"):
        with pytest.raises(AssertionError):
            run_commands(Block("bash", line + "\n", "", "", 1), ADDRESS)


def test_commands_are_split_as_a_shell_does():
    code = "python a.py --b 'c d' \\\n    --e   # what for\ncurl -d '{\"k\": 5}'\n"
    assert commands(Block("bash", code, "", "", 1)) == [
        ["python", "a.py", "--b", "c d", "--e"],
        ["curl", "-d", '{"k": 5}'],
    ]
    assert commands(Block("console", "$ python x.py\nanswer\n", "", "", 1)) == [["python", "x.py"]]
