"""Chromium without a screen, driven by playwright."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
READABLE = Path(__file__).with_name("readable.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def unreadable():
    """A function: what cannot be read on a page, as a list of texts."""
    return lambda page: page.evaluate(READABLE)


@pytest.fixture(scope="module")
def browser():
    """A browser; tests that ask for it are skipped where something that it needs is not installed."""
    for module in ("jinja2", "itables", "playwright"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield started
        started.close()
