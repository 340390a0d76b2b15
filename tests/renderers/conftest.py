"""Fixtures of the renderer's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from backends import Backend, found_backends
from compare import Reference
from scenes import SCENES


@cache
def _reference(name: str) -> Reference:
    return Reference(SCENES[name]())


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Reference]:
    """The oracle's answer to a scene of `scenes.SCENES`, computed once."""
    return _reference


@pytest.fixture(params=found_backends(), ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend of this machine in turn, chosen for the length of the test."""
    with request.param.chosen():
        yield request.param
