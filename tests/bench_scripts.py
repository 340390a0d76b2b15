"""Scripts of `bench/` run where the test runs: what a fresh process costs is two seconds of imports."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.renderers.engine import get_threads, set_threads

BENCH = Path(__file__).resolve().parents[1] / "bench"


def printed_by(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> dict[str, Any]:
    """What `bench/SCRIPT --quick --json` prints. Threads and modules are as before afterwards."""
    known, threads = set(sys.modules), (torch.get_num_threads(), get_threads())
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        patch.setattr(sys, "argv", [script, "--quick", "--json", *options])
        try:
            runpy.run_path(str(BENCH / script), run_name="__main__")
        finally:
            torch.set_num_threads(threads[0])
            set_threads(threads[1])
            for name in set(sys.modules) - known:
                if BENCH in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
                    del sys.modules[name]
    return json.loads(capsys.readouterr().out)
