"""The documentation site: it builds strictly, links and pictures are there, what it quotes exists, and it needs no other host."""

from __future__ import annotations

import ast
import functools
import html
import http.server
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
MAX_BUILD_SECONDS = 40
sys.path.insert(0, str(ROOT / "scripts"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The built site, and the processor seconds that it took."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    before = os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    after = os.times()
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, after.children_user + after.children_system - before.children_user - before.children_system


@pytest.fixture(scope="module")
def site(built: tuple[Path, float]) -> Path:
    return built[0]


class Page(HTMLParser):
    """What a page links to, shows and calls its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for value in (given.get("id"), given.get("name")) if value}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href") or "")
        if tag != "a":
            self.loaded += [given[key] or "" for key in ("src", "srcset", "data", "poster", "action") if given.get(key)]
        if tag == "img":
            self.images.append(given)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


@pytest.mark.slow
def test_the_site_builds_strictly_and_quickly(built, pages):
    folder, seconds = built
    assert seconds < MAX_BUILD_SECONDS
    made = {path.relative_to(folder).with_suffix("").as_posix() for path in pages}
    assert made >= {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES}


def test_every_link_and_anchor_inside_the_site_leads_somewhere(site, pages):
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its addresses are absolute: it is shown for any path
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            missing = not target.is_file()
            lost = parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            if missing or (lost and parts.fragment != "__skip"):
                wrong.append((path.relative_to(site).as_posix(), link))
    assert not wrong


def test_every_picture_is_there_and_described(site, pages):
    shown = 0
    for path, page in pages.items():
        for image in page.images:
            shown += 1
            assert len((image.get("alt") or "").split()) >= 3, (path.name, image)
            assert (path.parent / unquote(image["src"] or "")).is_file(), (path.name, image)
    assert shown >= 20


def test_pages_load_nothing_from_another_host(site, pages):
    for path, page in pages.items():
        assert not [url for url in page.loaded if re.match(r"(https?:)?//", url)], path.name
    for path in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"""(?:url\(|@import\s+)["']?(?:https?:)?//[^)"'\s]+""", text), path.name


def test_pages_say_nothing_of_the_machine_they_were_built_on(site, pages):
    secrets = [str(ROOT), str(Path.home()), str(site), "/tmp/"]
    for path in pages:
        text = html.unescape(path.read_text(encoding="utf-8"))
        assert not [one for one in secrets if len(one) > 3 and one in text], path.name


# What the pages quote.


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    text = path.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [body for language, body in fences if language in languages]


def command_lines(path: Path) -> list[str]:
    """Every `workbench ...` line of a code block, fenced or indented; comments cut off, alternatives told apart."""
    text = path.read_text(encoding="utf-8")
    unfenced = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = [line for line in unfenced.splitlines() if line.startswith("    ")]
    lines = [line for body in blocks(path, "sh", "bash", "text", "") for line in body.splitlines()] + indented
    found = []
    for line in lines:
        for part in re.split(r"\s{3,}(?=workbench )", line):
            said = re.sub(r"\s{2,}[A-Za-z(#].*$|\s#.*$", "", re.sub(r"^(?:\w+=\S+\s+)+", "", part.strip()))
            if re.match(r"workbench( |$)", said):
                found += alternatives(said)
    return found


def alternatives(line: str) -> list[str]:
    """`workbench labels explain|score` as two lines; brackets around what may be left out are taken off."""
    words = re.sub(r"\.\.\.|[\[\]]", "", line).split(" ")
    for place, word in enumerate(words):
        if re.fullmatch(r"[a-z-]+(\|[a-z-]+)+", word):
            return [" ".join([*words[:place], one, *words[place + 1 :]]) for one in word.split("|")]
    return [" ".join(words)]


def parse(line: str) -> None:
    """Raise what the real command raises when it cannot parse the line. Missing arguments are no fault: pages abbreviate."""
    from typer.main import get_command

    from workbench.cli.app import app

    command: Any = get_command(app)
    words = shlex.split(line)[1:]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands or words[0].startswith("-"), f"no command {words[0]!r}: {line}"
        if words[0].startswith("-"):
            break
        command = command.commands[words.pop(0)]
    flags = {word.split("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
    known = {name for one in command.params for name in [*one.opts, *one.secondary_opts]} | {"--help", "-h"}
    assert flags <= known, f"{flags - known} unknown: {line}"
    if words and not hasattr(command, "commands"):
        numbers = [re.sub(r"^(FEATURE|N|INT)$", "1", word) for word in words]
        if not flags & {"--help", "-h"}:
            command.make_context(command.name, numbers, resilient_parsing=not flags <= known)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_command_in_a_code_block_parses(path):
    for line in command_lines(path):
        try:
            parse(line)
        except AssertionError:
            raise
        except Exception as error:
            if "Missing" in str(error) or "Missing" in type(error).__name__:
                continue  # `workbench vectors import|export|show` names commands, not calls
            raise AssertionError(f"{line}: {error}") from error


def test_commands_in_code_blocks_are_found_at_all():
    assert sum(len(command_lines(path)) for path in TEXTS) >= 100
    with pytest.raises(AssertionError, match="unknown"):
        parse("workbench report evil --no-such-flag")
    with pytest.raises(AssertionError, match="no command"):
        parse("workbench rapport evil")


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_inline_commands_name_commands_and_flags_that_exist(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for said in re.findall(r"`(workbench [^`\n]+)`", text):
        if "COMMAND" in said:
            continue
        for line in alternatives(said.split(" | ")[0]):
            try:
                parse(line)
            except AssertionError:
                raise
            except Exception:
                continue  # arguments are left out in a sentence


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_python_snippets_compile_and_use_names_that_exist(path):
    import workbench

    for body in blocks(path, "python", "py"):
        tree = ast.parse(body)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), body
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "wb":
                assert node.attr in workbench.__all__, f"wb.{node.attr}: {path.name}"


def test_the_reference_of_the_command_line_is_complete_and_always_the_same(pages):
    import docs_cli

    assert docs_cli.reference() == docs_cli.reference()
    page = next(page for path, page in pages.items() if path.as_posix().endswith("reference/cli.html"))
    text = next(path for path in pages if path.as_posix().endswith("reference/cli.html")).read_text(encoding="utf-8")
    listed = dict(docs_cli.commands())
    assert len(listed) > 40
    for name, command in listed.items():
        assert name.replace(" ", "-") in page.anchors
        section = text[text.index(f'id="{name.replace(" ", "-")}"') :]
        section = section[: section.find("<h", 10) if "<h" in section[10:] else None]
        if not hasattr(command, "commands"):
            flags = {flag for one in command.params for flag in one.opts if flag.startswith("--") and not one.hidden}
            assert not [flag for flag in flags - {"--help"} if flag not in section], name


def test_the_python_reference_has_every_public_name(pages):
    import docs_python

    import workbench

    placed = [name for names in docs_python.sections().values() for name in names]
    assert sorted(placed) == sorted(workbench._HOMES)
    page = next(page for path, page in pages.items() if path.as_posix().endswith("reference/python.html"))
    assert not [name for name, home in workbench._HOMES.items() if f"workbench.{home}.{name}" not in page.anchors]


def literal(node: ast.AST) -> str | None:
    """A text of the code as it may be printed: `…` stands for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore[misc]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (literal(node.left) or "…") + (literal(node.right) or "…")
    return None


@functools.cache
def printed_texts() -> frozenset[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "workbench").rglob("*.py"))
    return frozenset(text.strip() for tree in trees for node in ast.walk(tree) if (text := literal(node)))


def test_every_quoted_message_is_in_the_code():
    quoted = re.findall(r"^### `(.+)`$", (DOCS / "messages.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(quoted) >= 40
    assert not [message for message in quoted if message not in printed_texts()]
    assert "there is no such message …" not in printed_texts()


def test_the_trait_of_the_quick_start_is_a_good_one(site, tmp_path):
    import fresh_reader

    from workbench.personas.traits import load_trait

    (example,) = fresh_reader.downloads(site / "quickstart.html")
    (tmp_path / "nostalgic").mkdir()
    shutil.copy(example, tmp_path / "nostalgic" / "trait.yaml")
    assert load_trait(tmp_path / "nostalgic").name == "nostalgic"
    assert "workbench report traits/nostalgic --max-new-tokens 24" in fresh_reader.commands(site / "quickstart.html")


def test_formulas_are_mathml(site):
    text = (site / "method.html").read_text(encoding="utf-8")
    assert text.count("<math") >= 10
    assert "```math" not in text and "$`" not in text and "$<code>" not in text


def test_examples_in_docstrings_are_code(site):
    text = (site / "reference/python.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt; " in text
    assert "&gt;&gt;&gt; " not in re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL)


# In a browser.


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.conftest import BROWSERS, SWITCHES

    playwright = pytest.importorskip("playwright.sync_api")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("WORKBENCH_REQUIRE_BROWSER"):
            pytest.fail("no browser")
        pytest.skip("no browser is installed")
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=found, args=SWITCHES)
        yield opened
        opened.close()


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1300)])
@pytest.mark.parametrize("name", ["quickstart.html", "concepts.html", "method.html", "evil.html"])
def test_a_page_opens_without_errors_strangers_or_barriers(browser, address, name, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address + name)
    page.wait_for_load_state("networkidle")
    assert not problems
    assert asked and not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    grave = [
        (found["id"], [node["target"] for node in found["nodes"]])
        for found in axe.run(page).response["violations"]
        if found["impact"] in ("serious", "critical")
    ]
    context.close()
    assert not grave


@pytest.mark.browser
def test_search_finds_a_page_without_a_network(browser, address):
    page = browser.new_page()
    page.goto(address + "index.html")
    page.get_by_role("textbox", name="Search").first.press_sequentially("placebo")  # it listens to keys
    page.wait_for_selector(".md-search-result__item", timeout=60_000)
    titles = page.locator(".md-search-result__item h1, .md-search-result__item h2").all_inner_texts()
    page.close()
    assert any("placebo" in title.lower() for title in titles)
