"""Every output and every gradient of every backend against the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from backends import ORACLE_SINGLE, Backend
from compare import Reference, compare
from scenes import SCENES


@pytest.mark.parametrize("name", list(SCENES))
def test_backend_agrees_with_the_oracle(name: str, backend: Backend, reference: Callable[[str], Reference]) -> None:
    agreement = compare(backend, reference(name))
    print(f"{backend.name} {name}: {agreement}")
    assert not agreement.faults, "\n".join([str(agreement), *agreement.faults])


@pytest.mark.parametrize("name", list(SCENES))
def test_oracle_in_single_precision(name: str, reference: Callable[[str], Reference]) -> None:
    """Rounding alone stays within what backends are allowed."""
    agreement = compare(ORACLE_SINGLE, reference(name))
    print(f"{ORACLE_SINGLE.name} {name}: {agreement}")
    assert not agreement.faults, "\n".join([str(agreement), *agreement.faults])
