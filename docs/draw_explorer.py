"""Take the pictures of README.md and docs/explorer.md from a server that runs: docs/explorer/*.webp.

make demo && make serve
python docs/draw_explorer.py --url http://127.0.0.1:8000 --point 1F68C/fluent.png --other 1F34E/fluent.png

It needs Chromium and the package playwright, which the extra `dev` has.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "explorer"
QUALITY = 82
WIDE = {"width": 1280, "height": 800}


def main() -> int:
    """Write the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (%(default)s)")
    parser.add_argument("--collection", default="default", help="name of the collection (%(default)s)")
    parser.add_argument("--point", default="1F68C/fluent.png", help="id of the point in focus (%(default)s)")
    parser.add_argument("--other", default="1F34E/fluent.png", help="id of the point to compare it with (%(default)s)")
    arguments = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        parser.error("there is no Chromium on this machine")
    start = f"{arguments.url}/#/{quote(arguments.collection)}"
    point, other = (f"id:{quote(name, safe='')}" for name in (arguments.point, arguments.other))
    views = {
        "map": f"{start}/map",
        "focus": f"{start}/focus?of={point}&sel={quote(arguments.point, safe='')}",
        "path": f"{start}/path?of={point}",
        "compare": f"{start}/compare?of={point}&with={other}",
    }
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, url in views.items():
            picture(browser.new_page(viewport=WIDE), url, name)
        picture(browser.new_page(viewport=WIDE, color_scheme="dark"), views["focus"], "dark")
        browser.close()
    return 0


def picture(page: Page, url: str, name: str) -> None:
    """Write what a page shows once it is drawn and asks for nothing more."""
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # points have turned and thumbnails have faded in
    file = FOLDER / f"{name}.webp"
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(file, quality=QUALITY, method=6)
    sys.stdout.write(f"{file} {file.stat().st_size / 1000:.0f} kB\n")
    page.close()


if __name__ == "__main__":
    sys.exit(main())
