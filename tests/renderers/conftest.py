"""Fixtures of the renderer's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from backends import Backend, emulator, found_backends
from compare import Reference
from scenes import SCENES

from smalti.renderers.engine import exact_cuda
from smalti.renderers.engine.emulator import Emulator
from smalti.renderers.engine.exact_source import BUILT_IN, ExactSource


@pytest.fixture
def every_kind_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The emulator, for the general compositor: one library holds all kinds, so that only one has to be compiled."""

    def all_kinds(kinds: object, dtype: torch.dtype, draws: tuple[str, ...]) -> ExactSource:
        return ExactSource(tuple(BUILT_IN.values()), dtype, draws)

    monkeypatch.setattr(exact_cuda, "ExactSource", all_kinds)
    with emulator().selected() as selected:
        yield selected
        selected.direction = selected.block_direction = 1


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
