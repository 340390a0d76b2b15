"""What a conformance suite found."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One check."""

    name: str
    passed: bool
    text: str
    """The number and its limit, or what went wrong and what that usually means."""


@dataclass(eq=False)
class Report:
    """All findings about `subject`; `print` shows them as a table."""

    subject: str
    findings: list[Finding] = field(default_factory=list)

    def note(self, name: str, error: float, limit: float, help: str) -> None:
        """A number that must not exceed `limit` (NaN does); `help` says what is wrong where it does."""
        passed = error <= limit
        text = f"{error:.1e}, limit {limit:.0e}"
        self.findings.append(Finding(name, passed, text if passed else f"{text}. {help}"))

    def require(self, name: str, holds: bool, help: str) -> None:
        """Something that must hold."""
        self.findings.append(Finding(name, holds, "" if holds else help))

    @contextmanager
    def expecting(self, name: str, help: str) -> Generator[None, None, None]:
        """Anything that is raised within fails this check instead of ending the suite."""
        try:
            yield
        except Exception as error:
            self.findings.append(Finding(name, False, f"{type(error).__name__}: {error}. {help}"))

    @property
    def failures(self) -> list[Finding]:
        """The checks that did not pass."""
        return [finding for finding in self.findings if not finding.passed]

    def raise_failures(self) -> None:
        """AssertionError with all failures, if there are any."""
        if self.failures:
            lines = [f"  {finding.name}: {finding.text}" for finding in self.failures]
            count = f"{len(self.failures)} of {len(self.findings)} checks"
            raise AssertionError(f"{self.subject} fails {count}:\n" + "\n".join(lines))

    def __str__(self) -> str:
        wide = max((len(finding.name) for finding in self.findings), default=0)
        rows = [f"{'ok  ' if f.passed else 'FAIL'} {f.name:<{wide}}  {f.text}" for f in self.findings]
        return "\n".join([f"{self.subject}: {len(self.findings) - len(self.failures)}/{len(self.findings)}", *rows])
