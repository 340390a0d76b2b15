"""What every test shares: the data sets, threads, and the rule that continuous integration skips nothing but CUDA."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
ALLOWED_SKIP = "CUDA device"
"""A skip whose reason contains this is allowed everywhere: continuous integration lacks the hardware."""


def _is_true(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        default=_is_true("CI"),
        help=f"a skipped test fails unless its reason contains {ALLOWED_SKIP!r} (the default where CI=true)",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))


def pytest_sessionstart(session: pytest.Session) -> None:
    """With SMALTI_REQUIRE_INSTALLED=1 the tests refuse to judge the source tree in place of the installed package."""
    if _is_true("SMALTI_REQUIRE_INSTALLED"):
        import smalti

        found = Path(smalti.__file__).resolve()
        if found.is_relative_to(ROOT / "smalti"):
            raise pytest.UsageError(
                f"SMALTI_REQUIRE_INSTALLED is set, but `import smalti` found the source tree: {found}"
            )


def pytest_report_header(config: pytest.Config) -> str:
    import smalti

    return f"smalti {smalti.__version__} from {Path(smalti.__file__).parent}, torch {torch.__version__}"


def _forbidden(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """The reason of a skip that counts as a failure, else None. Expected failures (xfail) are not skips."""
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return None
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return None if ALLOWED_SKIP in reason else reason


def _judge(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    reason = _forbidden(report) if config.getoption("--fail-on-skip") else None
    if reason is not None:
        report.outcome = "failed"
        report.longrepr = f"--fail-on-skip: not run, though only a missing {ALLOWED_SKIP} would excuse it: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    report = yield
    _judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    _judge(report, collector.config)
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the development data sets: $SMALTI_TEST_DATA, else ../shared/data beside the repository."""
    given = os.environ.get("SMALTI_TEST_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"shared data set not found: {folder} (SMALTI_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """The demo scene inside the package."""
    import smalti

    return Path(smalti.__file__).parent / "datasets" / "demo"


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Runs a test with a single torch thread, for what is compared bit by bit with another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
