"""Fixtures for all tests: tiny seeded models, the fetched default model, a browser, and an environment without surprises."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

# Before any library is imported: no hub, no bars, no telemetry. The cache stays the user's: assets are fetched once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ["WORKBENCH_PROGRESS"] = "0"
if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core, so one thread per process
    os.environ.setdefault("OMP_NUM_THREADS", "1")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

if TYPE_CHECKING:
    from workbench.models.loading import Model


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` run where there is one."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU that torch can use")


@pytest.fixture(scope="session")
def tiny_models() -> Callable[..., Model]:
    """`tiny_models(family="llama", seed=0)`: a real model of that family, some kilobytes large; built once each."""
    from tests.tiny import tiny_model as build

    built: dict[tuple[str, int], Model] = {}

    def make(family: str = "llama", seed: int = 0) -> Model:
        if (family, seed) not in built:
            built[family, seed] = build(family=family, seed=seed)
        return built[family, seed]

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_models: Callable[..., Model]) -> Model:
    """A tiny seeded Llama with a chat template."""
    return tiny_models()


@pytest.fixture(scope="session")
def default_model() -> Model:
    """The default model from the cache (fetched on first use). Mark tests that use it with `assets`."""
    from workbench.models.loading import load_model

    return load_model()


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Chromium through playwright; skipped without one, unless WORKBENCH_REQUIRE_BROWSER=1."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if program is None or sync_playwright is None:
        missing = "no chromium" if program is None else "no playwright"
        (pytest.fail if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1" else pytest.skip)(missing)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=SWITCHES)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's settings must not change what a test sees; WORKBENCH_CACHE and WORKBENCH_ASSETS may say where data lies."""
    kept = {"WORKBENCH_CACHE", "WORKBENCH_ASSETS", "WORKBENCH_PROGRESS", "WORKBENCH_REQUIRE_BROWSER"}
    for name in [name for name in os.environ if name.startswith("WORKBENCH_") and name not in kept]:
        monkeypatch.delenv(name)
    yield
