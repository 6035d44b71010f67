"""A browser per module, and one server with the collection of colours, for the tests of the explorer."""

import pytest

from tests.support.browser import ARGUMENTS, Watch, chromium


@pytest.fixture(scope="module")  # closed before another module starts Playwright, which takes one at a time
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # of a machine that does other things too
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url(tmp_path_factory):
    """The address of a server that has the colours in `default`, hostile texts in `hostile` and nothing in `empty`."""
    from tests.support.explorer import Running, make_app

    running = Running(make_app(tmp_path_factory.mktemp("explorer")))
    yield running.url
    running.close()


@pytest.fixture
def options():
    """How the window of a test is."""
    return {"viewport": {"width": 1280, "height": 860}}


@pytest.fixture
def page(browser, url, options):
    """A window of its own; in the end nothing may have gone wrong in it."""
    context = browser.new_context(base_url=url, reduced_motion="reduce", **options)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    page = context.new_page()
    page.set_default_timeout(60_000)  # of a machine that does other things too
    page.watch = Watch(page, url)
    yield page
    context.close()
    assert page.watch.problems == []
