"""The explorer in a browser: how soon it can be used, what its answers take to be on the screen, and what it costs.

A headless Chromium and a server without a model, on made-up collections; medians of three, each with a new server and
a browser without a cache. `usable` counts from the navigation to the query box; `map` from its request to the points
on the canvas, from nothing and with the layout on disk; `focus` from the click to the focus on the canvas, without its
animation; `search` from Enter to the thumbnails in sight. The last rows: the time that /retrieve takes, asked 20 times
a second, while the page is dragged and searched in turns and while it is shut.

    python tests/benchmarks/bench_page.py
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from page_server import NEARER, fill
from servers import PORT, Server, running

from hypclip.search.layout.kept import FOLDER as LAYOUTS
from serve.api.page import files
from tests.support.browser import ARGUMENTS, chromium

SIZES = ((5_000, 128), (10_000, 512), (100_000, 128))
TRIES = 3
SEARCHED = "thing 1001"
PERIOD_S = 0.05
FAR_S = 2.0
"""How long the page is busy before it counts."""
WAIT_S = 300.0

LIMITS = {"usable": 1000, "focus": 100, "search": 400, "requests": 6, "heap": 150, "files": 120}
MAP_LIMITS = {5_000: 500, 10_000: 3000, 100_000: 3000}
UNITS = {"requests": "", "heap": "MB", "files": "kB"}

WATCH = """
window.times = {};
const tests = {
  usable: () => document.getElementById("query"),
  map: () => document.querySelector(".stage canvas") && document.querySelector(".legend .kind"),
  focus: () => document.querySelector(".swatch.ancestor"),
};
const settled = (name) => requestAnimationFrame(() => { times[name] ??= performance.now(); });
const sights = () => {
  const cards = [...document.querySelectorAll(".cards .face")].filter((face) => {
    const { top, bottom } = face.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  });
  const images = cards.flatMap((card) => [...card.querySelectorAll("img")]);
  const waits = cards.some((card) => card.querySelector(".skeleton"));
  if (images.length && !waits && images.every((image) => image.complete && image.naturalWidth)) settled("search");
  else requestAnimationFrame(sights);
};
new MutationObserver(() => {
  for (const [name, test] of Object.entries(tests)) if (!(name in times) && test()) settled(name);
}).observe(document, { subtree: true, childList: true, characterData: true });
addEventListener("pointerup", () => { times.click = performance.now(); }, true);
addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.isTrusted) return; // not those of a busy page
  times.enter = performance.now();
  requestAnimationFrame(sights);
}, true);
"""
"""Notes when a thing was first there and drawn: the page draws in the frame after it, before this note is made."""

BUSY = """() => {
  window.busy = true;
  window.frames = 0;
  window.searches = 0;
  const overlay = [...document.querySelectorAll(".stage canvas")].at(-1);
  overlay.setPointerCapture = () => {};
  const { left, top, width, height } = overlay.getBoundingClientRect();
  const send = (type, x, y) => overlay.dispatchEvent(new PointerEvent(type, {
    pointerId: 1, bubbles: true, clientX: left + width * (0.5 + 0.2 * x), clientY: top + height * (0.5 + 0.2 * y) }));
  const drag = () => {
    if (!window.busy) return send("pointerup", 1, 0);
    const angle = window.frames++ / 20;
    send("pointermove", Math.cos(angle), Math.sin(angle));
    requestAnimationFrame(drag);
  };
  const search = () => {
    if (!window.busy) return;
    const field = document.getElementById("query");
    field.value = `thing ${window.searches++ + 7}`;
    field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
    setTimeout(search, 1000);
  };
  send("pointerdown", 1, 0);
  drag();
  search();
}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=TRIES, help="of which the medians are printed")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn of the load")
    options = parser.parse_args(argv)
    late = False
    print("what                                points        median    limit")
    with chrome() as browser, tempfile.TemporaryDirectory() as scratch:
        for count, dim in SIZES:
            folder = Path(scratch) / f"{count}"
            folder.mkdir()
            fill(folder, count, dim)
            for what, values, limit in rows(browser, folder, count, options.tries):
                late |= shown(what, f"{count:,} × {dim}", statistics.median(values), limit)
        size = sum(len(gzip.compress(file.content)) for file in files().values()) / 1000
        late |= shown("files", "", size, LIMITS["files"])
        loaded(browser, Path(scratch) / f"{SIZES[1][0]}", options)
    return int(late)


def shown(what: str, of: str, value: float, limit: float | None) -> bool:
    """Print a row; return whether it is over its limit."""
    unit = UNITS.get(what.split(",")[0], "ms")
    bound = "" if limit is None else f"{limit:>5} {unit}"
    print(f"{what:<32} {of:>14} {value:>10.0f} {unit:<2} {bound}".rstrip(), flush=True)
    return limit is not None and value > limit


def rows(browser: Any, folder: Path, count: int, tries: int) -> Iterator[tuple[str, list[float], float | None]]:
    """Yield what was measured of one collection, with limits."""
    found: list[dict[str, float]] = []
    for _ in range(tries):
        shutil.rmtree(folder / "index" / LAYOUTS, ignore_errors=True)
        with served(folder) as server:
            one = first_look(browser, server)
            one |= search(browser, server)
        with served(folder) as server:
            one["kept"] = first_look(browser, server)["map"]
        found.append(one)
    column = {name: [one[name] for one in found] for name in found[0]}
    yield "usable", column["usable"], LIMITS["usable"]
    yield "map, from nothing", column["map"], MAP_LIMITS[count]
    yield "map, layout on disk", column["kept"], None
    yield "focus", column["focus"], LIMITS["focus"] if count <= 10_000 else None
    yield "search", column["search"], LIMITS["search"]
    yield "requests, of a search", column["requests"], LIMITS["requests"]
    yield "heap", column["heap"], LIMITS["heap"]


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """Lend a server of a folder."""
    command = [sys.executable, str(Path(__file__).with_name("page_server.py")), str(folder), PORT]
    with running(command, folder) as server:
        yield server


@contextmanager
def chrome() -> Iterator[Any]:
    """Lend a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, server: Server, place: str = "") -> Iterator[Any]:
    """Lend a window of its own at a place, without animations."""
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{server.port}/",
        reduced_motion="reduce",
        viewport={"width": 1280, "height": 860},
    )
    try:
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.add_init_script(WATCH)
        page.goto(f"/{place}")
        noted(page, "map")
        page.wait_for_load_state("networkidle")
        yield page
    finally:
        context.close()


def noted(page: Any, name: str) -> None:
    """Wait until the page has the time of something; asked from outside, since its policy refuses eval."""
    end = time.monotonic() + WAIT_S
    while not page.evaluate(f"times.{name}"):
        if time.monotonic() > end:
            raise TimeoutError(f"nothing was seen of {name}")
        page.wait_for_timeout(50)


def first_look(browser: Any, server: Server) -> dict[str, float]:
    """Open the page and click a point."""
    with opened(browser, server) as page:
        asked = page.evaluate(
            "performance.getEntriesByType('resource').find((each) => each.name.endsWith('/map')).startTime"
        )
        click(page)
        noted(page, "focus")
        times = page.evaluate("times")
        page.wait_for_load_state("networkidle")
        return {
            "usable": times["usable"],
            "map": times["map"] - asked,
            "focus": times["focus"] - times["click"],
            "heap": heap(page),
        }


def click(page: Any) -> None:
    """Click about the disk until a point is met, which makes the page ask for something."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    box = page.locator(".stage canvas").last.bounding_box()
    x, y, far = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, 0.3 * box["height"]
    for step in range(60):
        asked.clear()
        page.mouse.click(x + far * np.cos(2.4 * step), y + far * np.sin(2.4 * step))
        page.wait_for_timeout(300)
        if asked:
            return
    raise RuntimeError("there was no point under any click")


def heap(page: Any) -> float:
    """Return the megabytes of the page's objects and arrays."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")
    return float(used["usedSize"] + used.get("backingStorageSize", 0)) / 1e6


def search(browser: Any, server: Server) -> dict[str, float]:
    """Search for a text in a page that shows the map."""
    with opened(browser, server) as page:
        asked: list[str] = []
        page.on("request", lambda request: None if request.url.startswith("blob:") else asked.append(request.url))
        page.locator("#query").fill(SEARCHED)
        page.keyboard.press("Enter")
        noted(page, "search")
        page.wait_for_load_state("networkidle")
        times = page.evaluate("times")
        return {"search": times["search"] - times["enter"], "requests": len(asked)}


def loaded(browser: Any, folder: Path, options: argparse.Namespace) -> None:
    """Print what /retrieve takes with a busy page and without one, in turns, and the ratio."""
    vectors = NEARER * np.load(folder / "vectors.npy", mmap_mode="r")[:50]
    bodies = [json.dumps({"query": {"embedding": vector.tolist()}, "k": 10}) for vector in vectors]
    taken: dict[bool, list[float]] = {False: [], True: []}
    spawned = multiprocessing.get_context("spawn")
    with served(folder) as server, ProcessPoolExecutor(1, mp_context=spawned) as pool:
        pool.submit(answers, server.port, bodies, FAR_S).result()
        for turn in range(2 * options.tries):
            if turn % 2:
                with opened(browser, server, "#/default/focus?of=text:thing+5") as page:
                    page.evaluate(BUSY)
                    page.wait_for_timeout(1000 * FAR_S)
                    taken[True] += awaited(page, pool.submit(answers, server.port, bodies, options.seconds))
                    assert page.evaluate("[window.frames, window.searches].every((count) => count > 3)")
            else:
                taken[False] += pool.submit(answers, server.port, bodies, options.seconds).result()
    for share in (50, 99):
        alone, beside = (1000 * float(np.percentile(taken[open], share)) for open in (False, True))
        print(
            f"/retrieve, p{share}: {alone:.1f} ms without a page, {beside:.1f} ms beside a busy one,"
            f" {beside / alone:.2f} times"
        )


def awaited(page: Any, future: Future[list[float]]) -> list[float]:
    """Return the outcome, and let the page go on meanwhile."""
    while not future.done():
        page.wait_for_timeout(100)
    return future.result()


def answers(port: int, bodies: Sequence[str], seconds: float) -> list[float]:
    """Ask at a steady pace; return how long each answer took from when it was due, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken: list[float] = []
    began = time.perf_counter()
    for i in range(int(seconds / PERIOD_S)):
        due = began + i * PERIOD_S
        time.sleep(max(0.0, due - time.perf_counter()))
        connection.request("POST", "/retrieve", bodies[i % len(bodies)], {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"/retrieve was answered {answer.status}")
        taken.append(time.perf_counter() - due)
    connection.close()
    return taken


if __name__ == "__main__":
    sys.exit(main())
