"""What tests and benchmarks do with the page."""

from __future__ import annotations

from typing import Any

WAIT_MS = 40_000  # a bound for hanging, not a measure of speed: the machine may be busy


def by_id(name: str) -> str:
    return f'[data-testid="{name}"]'


def wait_until(page: Any, expression: str, argument: Any = None) -> None:
    """Waits for an expression or a function of the page to be true. playwright's own way needs `unsafe-eval`."""
    for _ in range(WAIT_MS // 100):
        if page.evaluate(expression, argument):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {expression} ({argument}); {page.evaluate('window.avatarStats?.()')}")


def open_page(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(f"{by_id('gallery')} img")


def start(page: Any) -> None:
    page.click(by_id("start"))
    wait_until(page, "avatarStats().state === 'live' && avatarStats().framesShown > 5")


def wait_for_text(page: Any, name: str, part: str) -> None:
    wait_until(
        page,
        "([selector, part]) => { const element = document.querySelector(selector);"
        " return !element.hidden && element.textContent.includes(part) }",
        [by_id(name), part],
    )
