"""The claims of Splat the Net (Zhou et al. 2025), tried: `python bench/neural_splats.py --part toy --json`.

Parts, each a module with a `report(arguments)` that does the runs, draws its figures into `--out` and returns plain
values:
- `toy` (`neural_toy.py`): PSNR against the number of primitives, and against that of parameters, on sharp solids.
- `forms` (`neural_forms.py`): the published form and ours on a capture: axes of the field, rays of negative density.
- `chair` (`neural_chair.py`): neural splats, Gaussians and both at equal bytes on a capture, by the trainer.
`--out FOLDER` gets `neural-PART.json` and the figures; `--json` prints. Runs that are done lie in `--cache`, one file
each, and are not done again; `--seconds` stops beginning new ones, so that a long experiment may be made in pieces.
`--quick` is a test.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"toy": "neural_toy", "forms": "neural_forms", "chair": "neural_chair"}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--out", type=Path, help="folder for the report and its figures")
    parser.add_argument("--cache", type=Path, help="folder of finished runs; by default a temporary one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the captures")
    parser.add_argument("--variants", help="part chair: only these, commas between")
    parser.add_argument("--validate", action="store_true", help="part chair: hold out training views, not the test's")
    parser.add_argument("--quick", action="store_true", help="a test: few, short runs")
    parser.add_argument("--json", action="store_true", help="print the report")
    return parser.parse_args()


def main() -> None:
    """One part."""
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder:
        arguments.cache = arguments.cache or Path(folder)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
        report: dict[str, Any] = import_module(PARTS[arguments.part]).report(arguments)
    text = json.dumps(report, indent=1)
    if arguments.out:
        name = f"neural-{arguments.part}" + ("-validation" if arguments.validate else "")
        (arguments.out / f"{name}.json").write_text(text + "\n")
    if arguments.json:
        print(text)


if __name__ == "__main__":
    main()
