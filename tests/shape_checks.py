"""A run-time checker for jaxtyping's hook that looks at array annotations only: dtype and shape, nothing else.

pytest --jaxtyping-packages=smalti,shape_checks.check tests/cameras
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from jaxtyping import AbstractArray


def _is_array(hint: Any) -> bool:
    if isinstance(hint, type):
        return issubclass(hint, AbstractArray)
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()
    return any(map(_is_array, members)) and all(_is_array(member) or member is type(None) for member in members)


def _array_hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints = {}
    for name, hint in function.__annotations__.items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, function.__globals__)
            except NameError:  # a name that only type checkers see
                continue
        if _is_array(hint):
            hints[name] = hint
    return hints


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, raising TypeError where an argument or the result is not an array of the annotated kind."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        hints = _array_hints(function)
        values = signature.bind(*arguments, **named).arguments
        for name, hint in hints.items():
            if name in values and not isinstance(values[name], hint):
                raise TypeError(f"{name}: expected {hint}, got {_describe(values[name])}")
        result = function(*arguments, **named)
        if "return" in hints and not isinstance(result, hints["return"]):
            raise TypeError(f"result: expected {hints['return']}, got {_describe(result)}")
        return result

    return checked


def _describe(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return f"{type(value).__name__} {dtype} {shape}" if shape is not None else repr(value)
