"""A real browser for tests: Debian's Chromium, headless, driven by Playwright, cut off from the world."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request, Route

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str:
    """Why there is no browser here; empty where there is one."""
    if not any(map(shutil.which, NAMES)):
        return "no Chromium on this machine; on Debian: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError:
        return "playwright is not installed; pip install playwright"
    return ""


@contextmanager
def started() -> Generator[Browser, None, None]:
    """A browser for as long as the block lasts."""
    from playwright.sync_api import sync_playwright

    path = next(found for found in map(shutil.which, NAMES) if found)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Heard:
    """What a page asked for and complained about."""

    outside: list[str] = field(default_factory=list)
    """Addresses on other hosts that it asked for (they are refused)."""
    errors: list[str] = field(default_factory=list)
    """Uncaught errors of its scripts."""
    policy: list[str] = field(default_factory=list)
    """What the content security policy forbade it."""


@contextmanager
def opened(
    browser: Browser, url: str, width: int = 1000, height: int = 600
) -> Generator[tuple[Page, Heard], None, None]:
    """A page of its own context at `url`, with a log of what it asked for; requests to other hosts are refused."""
    heard, own = Heard(), urlsplit(url).netloc
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=1)
    page = context.new_page()

    def judge(route: Route, request: Request) -> None:
        target = urlsplit(request.url)
        if target.scheme in ("http", "https", "ws", "wss") and target.netloc != own:
            heard.outside.append(request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/*", judge)
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on(
        "console",
        lambda message: heard.policy.append(message.text) if "Content Security Policy" in message.text else None,
    )
    try:
        page.goto(url, wait_until="load")
        yield page, heard
    finally:
        context.close()
