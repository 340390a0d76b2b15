"""Open a capture, ask whether it is fit for training, and see what is said when one camera is wrong.

`smalti check DATA` prints the same and more.

    python examples/03_open_and_check_data.py [folder of a capture]
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from smalti.datasets.check import CheckOptions, check_dataset
from smalti.datasets.dataset import DatasetError
from smalti.datasets.open import DEMO, open_dataset


def describe(path: str | Path, options: CheckOptions) -> int:
    """Print the main findings; returns the exit code that `smalti check` would give."""
    try:
        report = check_dataset(open_dataset(path), options)
    except DatasetError as error:
        print(f"refused: {error}")
        return 2
    found = f"{report.images_found} pictures of {[*report.sizes]}, {report.images_missing} missing"
    print(f"{report.name}: {report.format}, {found}")
    print(f"  train and test: {report.splits}, focal length {report.focal[0]:.1f} px")
    print(f"  cameras about {report.scale.camera_distance:.2f} ({report.scale.unit} units) from what they look at")
    if report.epipolar is not None:
        print(f"  matched features lie {report.epipolar.median:.2f} px from their epipolar lines (median)")
    for outlier in report.outliers:
        print(f"  outlier: {outlier}")
    for notice in report.warnings:
        print(f"  warning: {notice.text}")
    for problem in report.problems:
        print(f"  problem: {problem}")
    return report.exit_code


if len(sys.argv) > 1:
    sys.exit(describe(sys.argv[1], CheckOptions()))

code = describe("demo", CheckOptions(features="never"))
assert code == 0

# The same pictures, but one pose is not a number: found by name before anything is trained.
with tempfile.TemporaryDirectory() as folder:
    damaged = Path(folder) / "damaged"
    shutil.copytree(DEMO, damaged)
    transforms = damaged / "transforms_train.json"
    content = json.loads(transforms.read_text())
    content["frames"][7]["transform_matrix"][0][3] = np.nan
    transforms.write_text(json.dumps(content))
    code = describe(damaged, CheckOptions(features="never"))
    assert code == 2
