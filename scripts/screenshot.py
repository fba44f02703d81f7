"""Take the picture of a report that the README shows.

python scripts/screenshot.py runs/evil-smollm2-135m-instruct/report.html docs/images/report.png
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def main() -> int:
    default = ["runs/evil-smollm2-135m-instruct/report.html", "docs/images/report.png"]
    page, picture = (Path(argument) for argument in (*sys.argv[1:], *default[len(sys.argv) - 1 :]))
    browser = next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )
    if browser is None or not page.is_file():
        print(
            "No browser found." if browser is None else f"{page} does not exist: run `workbench demo` first.",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            *FLAGS,
            f"--user-data-dir={profile}",
            "--window-size=1200,1500",
            f"--screenshot={picture.resolve()}",
        ]
        return subprocess.run([*command, page.resolve().as_uri()], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
