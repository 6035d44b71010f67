"""The states of the explorer: what it says and offers when a request is refused, waits, or finds nothing."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.support.processes import eventually

pytestmark = pytest.mark.slow

GRID = "/#/default/grid?of=id:name/red"
RETRIEVE = re.compile(r"/retrieve$")


def refuse(page, path, status, kind, message, times=None, **headers):
    """Have requests answered by an error in the shape of the server's."""
    page.watch.expect_status(status)
    body = json.dumps({"error": {"type": kind, "message": message, "request_id": "request-7"}})
    answer = {"status": status, "content_type": "application/json", "headers": headers, "body": body}
    left = {} if times is None else {"times": times}
    page.route(path, lambda route: route.fulfill(**answer), **left)


def alert(page):
    return page.locator("[role=alert]").filter(has_text=re.compile("."))


@pytest.mark.parametrize(
    ("status", "kind", "headline"),
    [
        (403, "forbidden", "This key may not do that"),
        (409, "model_mismatch", "A collection of another model"),
        (413, "body_too_large", "Too large"),
        (422, "limit_exceeded", "The server cannot take this"),
        (500, "internal_error", "The server failed"),
        (504, "deadline_exceeded", "It took too long"),
    ],
)
def test_a_refusal_says_what_was_wrong_and_under_which_id(page, status, kind, headline):
    refuse(page, RETRIEVE, status, kind, "this is what was wrong")
    page.goto(GRID)
    said = alert(page)
    expect(said).to_contain_text(headline)
    expect(said).to_contain_text("this is what was wrong")
    said.get_by_role("button", name="request request-7").click()
    assert page.evaluate("navigator.clipboard.readText()") == "request-7"
    page.unroute(RETRIEVE)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".cards .face").first).to_be_visible()


def test_after_a_deadline_fewer_are_offered(page):
    refuse(page, RETRIEVE, 504, "deadline_exceeded", "too slow", times=1)
    page.goto(GRID)
    page.get_by_role("button", name="Ask for 12").click()
    expect(page.locator(".cards .face")).to_have_count(12)


def test_an_image_that_is_refused_is_told_beside_the_field(page):
    refuse(page, re.compile("/embed$"), 413, "body_too_large", "over the limit of 100 bytes")
    page.goto("/")
    page.locator("input[type=file]").first.set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"x"})
    expect(page.locator(".query [role=alert]")).to_contain_text("over the limit of 100 bytes")


@pytest.mark.parametrize(("status", "kind"), [(429, "overloaded"), (503, "not_ready")])
def test_a_busy_server_is_waited_for(page, status, kind):
    refuse(page, RETRIEVE, status, kind, "full", times=1, **{"retry-after": "8"})
    page.goto(GRID)
    expect(page.locator(".banner")).to_contain_text(re.compile(r"Asking again in\s+[1-8]\s+s"))
    expect(page.locator(".cards .face").first).to_be_visible(timeout=30_000)
    expect(page.locator(".banner")).to_have_count(0)


def test_waiting_can_be_cancelled(page):
    refuse(page, RETRIEVE, 503, "not_ready", "the model is being loaded", **{"retry-after": "60"})
    page.goto(GRID)
    page.locator(".banner").get_by_role("button", name="Cancel").click()
    expect(alert(page)).to_contain_text("the model is being loaded")


def test_a_key_is_asked_for_once_and_kept_in_the_tab_alone(page):
    page.watch.expect_status(401)
    keys = []

    def guard(route):
        key = route.request.headers.get("authorization")
        keys.append(key)
        if key == "Bearer right":
            return route.continue_()
        body = {"error": {"type": "unauthorized", "message": "no", "request_id": "r"}}
        return route.fulfill(status=401, content_type="application/json", body=json.dumps(body))

    page.route(re.compile(r":\d+/(model|collections.*|retrieve)$"), guard)
    page.goto(GRID)
    dialog = page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    expect(page.locator("#key")).to_be_focused()
    page.locator("#key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-error")).to_contain_text("not known")
    page.locator("#key").fill("right")
    page.keyboard.press("Enter")
    expect(page.locator(".cards .face").first).to_be_visible()
    expect(dialog).to_be_hidden()
    assert "right" not in page.url
    assert page.evaluate("Object.values(sessionStorage)") == ["right"]
    assert page.evaluate("Object.values(localStorage)") == []
    page.get_by_role("button", name="Export").click()
    expect(page.locator("#export-dialog pre").first).to_contain_text("$HYPCLIP_KEY")
    assert "Bearer right" not in page.locator("#export-dialog").inner_text()


def test_without_a_key_the_page_says_so(page):
    refuse(page, re.compile(r":\d+/(model|collections)$"), 401, "unauthorized", "this server asks for an API key")
    page.goto("/")
    page.locator("#key-dialog").get_by_role("button", name="Not now").click()
    expect(alert(page).first).to_contain_text("A key is needed")


def test_without_an_answer_what_is_there_stays(page):
    page.goto(GRID)
    expect(page.locator(".cards .face").first).to_be_visible()
    page.watch.expect_status(0)
    page.context.set_offline(True)
    page.get_by_role("group", name="What to find").get_by_role("button", name="Below").click()
    expect(page.locator(".banner")).to_contain_text("does not answer")
    assert "verb=below" in page.url
    page.context.set_offline(False)
    page.locator(".banner").get_by_role("button", name="Try again").click()
    expect(page.locator(".toolbar")).to_contain_text("8 points")


def test_nothing_found_says_what_to_loosen(page):
    page.goto("/#/default/grid?of=id:name/red&verb=above&m=image")
    expect(page.locator(".notice")).to_contain_text("No match")
    expect(page.locator(".notice")).to_contain_text("56 points")
    page.get_by_role("button", name="any modality").click()
    expect(page.locator(".cards .face")).to_have_count(1)


def test_an_unknown_point_and_an_unknown_collection_are_told(page):
    page.watch.expect_status(404)
    page.goto("/#/default/grid?of=id:nobody")
    expect(alert(page).first).to_contain_text("not in the collection")
    page.goto("/#/nowhere/map")
    page.get_by_role("button", name="hostile").click()
    expect(page).to_have_url(re.compile("#/hostile/map"))


def test_an_empty_collection_takes_lines_of_text(page):
    page.goto("/#/empty/map")
    expect(page.locator("#panel")).to_contain_text("train/embed.py")
    page.get_by_label("Lines of text to add").fill("red\na warm colour")
    page.get_by_role("button", name="Add these lines").click()
    expect(page.locator(".legend")).to_contain_text("Centre")
    page.evaluate(
        """() => fetch("/collections/empty/points", { method: "DELETE", headers: { "content-type": "application/json" },
            body: JSON.stringify({ ids: ["red", "a warm colour"] }) })"""
    )


def test_what_is_out_of_date_is_stopped(page):
    page.add_init_script(
        """window.asked = []; const before = window.fetch;
        window.fetch = (url, options) => { asked.push([String(url), options.signal]); return before(url, options); };"""
    )
    page.route(RETRIEVE, lambda route: None)  # no answer ever
    page.goto(GRID)
    eventually(lambda: page.evaluate("asked.some(([url]) => url.endsWith('/retrieve'))"), "the request")
    page.get_by_role("group", name="What to find").get_by_role("button", name="Below").click()
    expect(page.locator(".toolbar")).to_contain_text("8 points")
    assert page.evaluate("asked.find(([url]) => url.endsWith('/retrieve'))[1].aborted")
