"""Take a picture of a report, as the README and the docs show them.

python scripts/screenshot.py runs/evil-smollm2-135m-instruct/report.html docs/images/report.png
python scripts/screenshot.py PAGE PICTURE --at evil/feature-3661 --scheme dark --size 1440x900
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

FLAGS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLOURS = 256
"""A page has few colours: a palette makes the file half as large and looks the same."""


def main() -> int:
    given = _arguments()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None or not given.page.is_file():
        missing = "No browser found." if browser is None else f"{given.page} does not exist: run `workbench demo` first."
        print(missing, file=sys.stderr)
        return 2
    given.picture.write_bytes(small(_picture(browser, given)))
    print(f"{given.picture}: {given.picture.stat().st_size / 1000:.0f} kB")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", default=Path("runs/evil-smollm2-135m-instruct/report.html"))
    parser.add_argument("picture", type=Path, nargs="?", default=Path("docs/images/report.png"))
    parser.add_argument("--at", default="", help="an address inside the page, such as evil/feature-3661")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--size", default="1440x900", help="width x height of the window in pixels")
    return parser.parse_args()


def _picture(browser: str, given: argparse.Namespace) -> bytes:
    from playwright.sync_api import sync_playwright

    width, height = map(int, given.size.split("x"))
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser, args=FLAGS).new_page(
            viewport={"width": width, "height": height}, color_scheme=given.scheme
        )
        page.goto(given.page.resolve().as_uri() + (f"#{given.at}" if given.at else ""))
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement && document.activeElement.blur()")
        page.wait_for_timeout(300)
        return page.screenshot()


def small(png: bytes) -> bytes:
    """The same picture with a palette, where Pillow is installed."""
    try:
        from PIL import Image  # pyright: ignore[reportMissingImports]
    except ImportError:
        return png
    made = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
    picture.save(made, "PNG", optimize=True)
    return made.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
