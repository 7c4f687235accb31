"""A Chromium without a network, for the tests that look at the report's page as a person would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

expect.set_options(timeout=120_000)  # milliseconds: a slow machine is no failure
VARIABLE = "BENCH_TEST_CHROMIUM"  # 1: a Chromium that is missing is a failure


@contextmanager
def started() -> Iterator[Browser]:
    """The Chromium of this machine; the test is skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None and os.environ.get(VARIABLE) != "1":
        pytest.skip("needs Chromium: apt-get install chromium")
    assert program is not None, "no Chromium here: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # root needs it
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, file: Path, width: int = 1440, **context: Any) -> Iterator[Page]:
    """The file in a window. What it logs, throws, or asks any server for is a failure."""
    wrong: list[str] = []
    window = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **context)
    window.set_default_timeout(120_000)
    page = window.new_page()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    window.close()
    asked = [what for what in wrong if not what.startswith("data:")]
    assert not asked, asked
