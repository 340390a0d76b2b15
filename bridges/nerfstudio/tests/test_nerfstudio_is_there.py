"""One test that says why the others are not run."""

import pytest

from conftest import MISSING


def test_nerfstudio_is_there() -> None:
    if MISSING:
        pytest.skip(MISSING)
