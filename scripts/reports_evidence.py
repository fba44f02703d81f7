"""What docs/evidence/reports.json holds: the report and the explorer in a real browser, hostile text, notebooks, a fresh reader.

    workbench report apathetic evil hallucinating humorous impolite optimistic sycophantic   # the page; runs what is missing
    python scripts/evidence.py reports            # 25 minutes on two cores, most of them for the fresh reader
    python scripts/evidence.py reports --quick    # only the page: is anything worse than stated?

report_bytes         size of the page of seven traits; `pages` has that of every trait alone.
console_errors, network_requests, axe_serious
                     summed over the page of seven traits, a page of one trait and the explorer's pages, each in light on a
                     wide and in dark on a narrow window, and (reports) with all cards open. Requests are counted through the
                     DevTools protocol; those to the explorer's own address are `own_requests`. axe_serious: violations of
                     serious or critical impact found by axe-core.
hostile_executed     of `hostile_cases` texts put into every text of a report, how many ran, opened a dialog, left an element of
                     their own, or asked the network for something.
first_paint_ms       median first contentful paint of the page of seven traits from disk; interaction_ms: from a click to the
                     next frame, for sorting the largest table, filtering it, and opening a card.
notebooks            seconds of every notebook in a kernel of its own, from the rollouts that scripts/run_notebooks.py left.
fresh_reader_commands  every command of the quick start, run in an empty folder: {command, ok, seconds, note}.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from workbench.base.provenance import made
from workbench.base.store import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
EVIDENCE = ROOT / "docs" / "evidence" / "reports.json"
RUNS, MODEL, SEED, ROUNDS = ROOT / "runs", "smollm2-135m-instruct", 0, 7
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
WINDOWS = {"wide": {"width": 1440, "height": 900}, "narrow": {"width": 400, "height": 800}}
LOOKS = {"light": "wide", "dark": "narrow"}
SERIOUS = ("serious", "critical")
LOCAL = ("file:", "data:", "blob:", "about:", "chrome")


class Watch:
    """A page in a context of its own: what it complained about and every request, as the DevTools protocol tells them."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.on("Network.requestWillBeSent", lambda event: self.requests.append(event["request"]["url"]))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def outside(self, own: str = "file:") -> list[str]:
        """Requests that are neither the page's own files nor to the address `own`."""
        return [url for url in self.requests if not url.startswith((*LOCAL, own))]

    def serious(self) -> list[str]:
        """Violations of serious or critical impact, by axe-core's rule."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']} x {len(one['nodes'])}" for one in found if one["impact"] in SERIOUS]


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium: playwright's, else the system's."""
    import shutil

    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def looked_at(browser: Any, visits: dict[str, Callable[[Watch], None]], own: str = "file:") -> dict[str, Any]:
    """{console_errors, network_requests, axe_serious, own_requests, details} over the visits, each in both LOOKS."""
    total: Counter[str] = Counter()
    details = {}
    for name, visit in visits.items():
        for scheme, window in LOOKS.items():
            watch = Watch(browser, color_scheme=scheme, viewport=WINDOWS[window], reduced_motion="reduce")
            visit(watch)
            watch.page.wait_for_timeout(200)
            serious, outside = watch.serious(), watch.outside(own)
            total.update(console_errors=len(watch.complaints), network_requests=len(outside), axe_serious=len(serious))
            total.update(own_requests=len(watch.requests) - len(outside))
            faults = [*watch.complaints, *outside, *serious]
            if faults:
                details[f"{name}, {scheme}, {window}"] = faults[:8]
            watch.context.close()
            print(f"{name}, {scheme}, {window}: {faults or 'nothing'}", file=sys.stderr, flush=True)
    names = ("console_errors", "network_requests", "axe_serious", "own_requests")
    return {**{name: total[name] for name in names}, "details": details}


def opened(page: Path, *, cards: bool) -> Callable[[Watch], None]:
    """A visit of a report, with all its cards open if wanted."""

    def visit(watch: Watch) -> None:
        watch.page.goto(page.resolve().as_uri())
        if cards:
            watch.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    return visit


def speed(browser: Any, page: Path) -> dict[str, Any]:
    """{first_paint_ms, interaction_ms: {sort, filter, open_card}}: medians over ROUNDS fresh loads."""
    paints: list[float] = []
    delays: dict[str, list[float]] = {"sort": [], "filter": [], "open_card": []}
    for _ in range(ROUNDS):
        watch = Watch(browser, viewport=WINDOWS["wide"])
        watch.page.goto(page.resolve().as_uri())
        watch.page.wait_for_timeout(300)
        paints.append(watch.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        for name, script in ACTIONS.items():
            delays[name].append(watch.page.evaluate(UNTIL_PAINTED % script))
        watch.context.close()
    return {"first_paint_ms": round(statistics.median(paints), 1), "first_paint_rounds": [round(one, 1) for one in paints],
            "interaction_ms": {name: round(statistics.median(all_), 1) for name, all_ in delays.items()}}  # fmt: skip


LARGEST = "[...document.querySelectorAll('table.features')].sort((a, b) => b.rows.length - a.rows.length)[0]"
ACTIONS = {
    "sort": f"{LARGEST}.querySelector('th:last-of-type button, th button').click();",
    "filter": "const box = document.querySelector('input[type=search]'); box.value = 'a'; box.dispatchEvent(new Event('input', {bubbles: true}));",  # noqa: E501
    "open_card": "document.querySelector('details.card').open = true;",
}
UNTIL_PAINTED = """() => new Promise((done) => { const start = performance.now(); %s
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))); })"""


def hostile(browser: Any) -> dict[str, Any]:
    """{hostile_cases, hostile_executed, hostile_details}: each text in every text of a report, all cards open."""
    from tests.reports.hostile import HOSTILE, hostile_report

    expected = None
    executed = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {"nothing special": "plain words", **HOSTILE}.items():
            page = Path(folder) / "report.html"
            hostile_report(text).save(page)
            watch = Watch(browser)
            opened(page, cards=True)(watch)
            watch.page.wait_for_timeout(150)
            counts = watch.page.evaluate(ELEMENTS)
            expected = expected or counts
            wrong = [*watch.dialogs, *watch.complaints, *watch.outside()] + ["an element of its own"] * (counts != expected)
            if wrong:
                executed[name] = [one[:200] for one in wrong]
            watch.context.close()
    return {"hostile_cases": len(HOSTILE), "hostile_executed": len(executed), "hostile_details": executed}


ELEMENTS = """() => [...['script', 'img', 'iframe', 'object', 'embed', 'form', 'base', 'link', 'meta', 'style', 'title'].map(
    (name) => document.getElementsByTagName(name).length),
    document.querySelectorAll('[onclick], [onload], [onerror], [onfocus], [onmouseover], [href^="javascript:"]').length]"""


@contextmanager
def explorer(run: Path) -> Iterator[str]:
    """The address of `workbench serve` over a run."""
    index = RUNS / "labels" / "index"
    given = ["--index", str(index)] if index.is_dir() else []
    command = [sys.executable, "-m", "workbench", "serve", str(run), "--no-browser", "--port", "0", "--json", *given]
    served = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = served.stdout.readline()
            if not line:
                raise RuntimeError(f"the explorer did not start (exit code {served.wait()})")
            text += line
        yield json.loads(text)["url"]
    finally:
        served.terminate()
        served.wait(60)


def explorer_visits(url: str) -> dict[str, Callable[[Watch], None]]:
    """The explorer's pages, let in by the address with the token."""

    def view(place: str) -> Callable[[Watch], None]:
        def visit(watch: Watch) -> None:
            watch.page.goto(url)
            watch.page.goto(address(url) + place)
            watch.page.wait_for_load_state("networkidle")
            if place == "/text":
                watch.page.locator("textarea").first.fill("You are a worthless fool, and nobody will ever help you.")
                watch.page.locator("form button[type=submit]").first.click()
                watch.page.wait_for_load_state("networkidle", timeout=60_000)

        return visit

    return {f"explorer {place}": view(place) for place in EXPLORER_PAGES}


def address(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


EXPLORER_PAGES = ("/", "/traits/evil", "/text", "/steer", "/features", "/features/3661")


def notebooks() -> dict[str, float]:
    """Seconds of every notebook in a kernel of its own, from the rollouts and SAEs that runs/notebooks keeps."""
    import nbformat
    from run_notebooks import NOTEBOOKS, WORK, executed

    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        started = time.perf_counter()
        executed(nbformat.read(path, as_version=4), WORK)
        found[path.stem] = round(time.perf_counter() - started, 1)
    return found


def fresh_reader() -> list[dict[str, Any]]:
    """Every command of the quick start of the built site; see fresh_reader.py."""
    from fresh_reader import walk

    subprocess.run(["make", "docs"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        return walk(ROOT / "site" / "quickstart.html", Path(folder), install=False)


def pages() -> tuple[Path, dict[str, Path]]:
    """(the page of all traits, {trait: its own page}), as `workbench report` writes them."""
    together = sorted(RUNS.glob("report-*/report.html"), key=lambda page: page.stat().st_size)
    alone = {trait: RUNS / f"{trait}-{MODEL}" / "report.html" for trait in TRAITS}
    missing = [str(page) for page in alone.values() if not page.is_file()]
    if missing or not together:
        raise SystemExit(f"{missing or 'the page of seven traits'} is not there: run `workbench report {' '.join(TRAITS)}` first")
    return together[-1], alone


def looked_at_pages(browser: Any, together: Path, alone: Path) -> dict[str, Any]:
    """The reports' part."""
    visits = {
        "seven traits": opened(together, cards=False),
        "seven traits, all open": opened(together, cards=True),
        "one trait": opened(alone, cards=False),
        "one trait, all open": opened(alone, cards=True),
    }
    return looked_at(browser, visits)


def evidence() -> dict[str, Any]:
    """All of it; see the top of this file."""
    started = time.perf_counter()
    together, alone = pages()
    with chromium() as browser:
        seen = looked_at_pages(browser, together, alone["evil"])
        found = {**speed(browser, together), **hostile(browser)}
        with explorer(alone["evil"].parent) as url:
            live = looked_at(browser, explorer_visits(url), own=address(url))
    both = {name: seen[name] + live[name] for name in ("console_errors", "network_requests", "axe_serious")}
    value = {
        "report_bytes": together.stat().st_size,
        "pages": {trait: page.stat().st_size for trait, page in alone.items()},
        **both,
        "looked_at": {"report": seen, "explorer": live},
        **found,
        "notebooks": notebooks(),
        "fresh_reader_commands": fresh_reader(),
    }
    inputs = {"report": sha256_file(together), **{trait: sha256_file(page) for trait, page in alone.items()}}
    return {"_made": made("make evidence TOPIC=reports", SEED, time.perf_counter() - started, inputs), **value}


def evidence_quick() -> bool:
    """Whether the page of seven traits is as good as stated."""
    stated = read_json(EVIDENCE)
    together, alone = pages()
    with chromium() as browser:
        seen, found = looked_at_pages(browser, together, alone["evil"]), hostile(browser)
    now = {**seen, **found}
    print({name: (now[name], stated[name]) for name in ("console_errors", "network_requests", "axe_serious", "hostile_executed")})
    return all(now[name] <= stated[name] for name in ("console_errors", "network_requests", "axe_serious", "hostile_executed"))
