"""Every public function of `smalti.scene` shows how it is used, and does what it shows."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest

import smalti.scene

MODULES = sorted(module.name for module in iter_modules(smalti.scene.__path__))
FUNCTIONS = [name for name in smalti.scene.__all__ if inspect.isroutine(getattr(smalti.scene, name))]
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(import_module(f"smalti.scene.{name}"))
    assert result.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name: str) -> None:
    assert f"{name}(" in (getattr(smalti.scene, name).__doc__ or "")


def test_all_names_are_there() -> None:
    assert set(smalti.scene.__all__) <= set(dir(smalti.scene))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        smalti.scene.__getattr__("nothing")
