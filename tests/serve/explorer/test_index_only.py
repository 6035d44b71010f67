"""The explorer of a taxonomy, from a server without a model: points are found by their names."""

from __future__ import annotations

import contextlib
import re

import pytest
from playwright.sync_api import expect

from hypclip.geometry.entailment import Plane
from hypclip.indexing.trees import tree_space, write_tree
from hypclip.search import LocalStore
from hypclip.taxonomy import load
from hypclip.taxonomy.embedding import place
from serve.app import create_app
from serve.settings import Settings


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    from tests.support.explorer import Running

    folder = tmp_path_factory.mktemp("tree") / "index"
    taxonomy = load("emoji")
    phrases, x = place(taxonomy, 32, 0.7)
    with contextlib.closing(LocalStore(folder, create=True)) as store:
        write_tree(store, "default", tree_space("emoji-tree", x, 1.0, Plane(-0.42)), taxonomy, phrases, x)
    running = Running(create_app(Settings(index=folder, index_only=True, access_log=False), None))
    yield running.url
    running.close()


def test_a_point_is_found_by_its_name_and_what_is_above_it_shown(page):
    page.watch.expect_status(409)  # of /model
    page.goto("/")
    expect(page.locator("#query-help")).to_contain_text("need a model, which this server has not")
    expect(page.locator(".pick")).to_have_count(0)
    expect(page.get_by_role("tab")).to_have_text(["Map", "Grid", "Path", "Compare", "Collections"])
    expect(page.locator(".left")).to_contain_text("The collection's own rule.")
    page.locator("#query").fill("A dog")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/focus[?]of=id:a\+dog"))
    expect(page.locator(".crumbs")).to_contain_text("an animal")
    expect(page.locator(".right")).to_contain_text("It is 2 points")
    page.locator("#query").fill("a unicorn of nowhere")
    page.keyboard.press("Enter")
    expect(page.locator(".query")).to_contain_text("no point has the id or name “a unicorn of nowhere”")


@pytest.mark.slow
def test_what_needs_a_model_says_so(page):
    page.watch.expect_status(409)
    page.goto("/#/default/grid?of=text:a%20dog")
    expect(page.locator("main")).to_contain_text("This server has no model")
    expect(page.locator("main")).to_contain_text("A stored point is found by its name or id.")
    page.goto("/#/default/collections")
    expect(page.locator(".collection")).to_contain_text("asked by its own points")
