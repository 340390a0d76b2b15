"""A whole training step (render, loss, backward, Adam), 100 k Gaussians, 800 x 800, beside the prototype.

`python bench/step.py --json`: process CPU milliseconds in the same run, and how they divide. Target: at most 2.2 times.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from prototype import Prototype
from raster import cloud
from timing import cpu_milliseconds

from smalti.configs.config import RefineConfig
from smalti.primitives.family import LossContext
from smalti.primitives.gaussians import Gaussians
from smalti.renderers.engine import library
from smalti.scene.scene import Scene
from smalti.trainers import step as stepping
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.losses import ImageLossWeights
from smalti.trainers.refinement import Refinement
from smalti.trainers.views import TrainingView


class Step:
    """The trainer's own step functions on the benchmark's cloud; `parts` collects milliseconds of CPU time by name."""

    def __init__(self, count: int, size: int) -> None:
        drawable, camera = cloud(count, size)
        values = {
            "means": drawable.means.detach(),
            "log_scales": drawable.scales.detach().log(),
            "quaternions": drawable.quaternions.detach(),
            "logit_opacities": torch.logit(drawable.opacities.detach()),
            "sh_dc": drawable.sh_dc.detach(),
            "sh_rest": torch.as_tensor(drawable.sh_rest).detach(),
        }
        self.scene = Scene()
        self.layer = self.scene.add("scene", Gaussians(values, {**Gaussians.default_metadata(), "active_sh_degree": 3}))
        self.layer.family.require_gradients(True)
        target = torch.rand(size, size, 3, generator=torch.Generator().manual_seed(2))
        self.view = TrainingView(0, camera, target, None, torch.zeros(3))
        self.refinement = Refinement(RefineConfig(), 1, 1.0)
        self.options = stepping.StepOptions(
            ImageLossWeights(0.2),
            {"scene": {"opacity": 0.01, "scale": 0.01}},
            LossContext(1.0, torch.Generator()),
        )
        self.adam = Adam(AdamSettings())
        self.parts: dict[str, list[float]] = {"forward_and_backward": [], "adam": []}

    def __call__(self) -> None:
        start = time.process_time()
        stepping.backward(self.scene, [self.view], self.refinement, self.options, 0)
        middle = time.process_time()
        # A rate of zero: every repetition does the same work.
        parameters = {f"scene/{name}": value for name, value in self.layer.family.parameters.items()}
        self.adam.step(parameters, dict.fromkeys(parameters, 0.0))
        self.parts["forward_and_backward"].append(1e3 * (middle - start))
        self.parts["adam"].append(1e3 * (time.process_time() - middle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    library.set_threads(1)
    torch.set_num_threads(1)
    prototype = Prototype(100_000, "avx512" if library.chosen() == "avx512" else "avx2")
    step = Step(arguments.count, arguments.size)

    def both() -> None:
        prototype.forward()
        prototype.backward()

    times = cpu_milliseconds({"prototype": both, "step": step}, arguments.repeats)
    median = lambda values: sorted(values)[len(values) // 2]  # noqa: E731
    result: dict[str, Any] = {"gaussians": arguments.count, "library": library.chosen(), **times}
    result["ratio"] = times["step"] / times["prototype"]
    result["parts"] = {name: median(values) for name, values in step.parts.items()}
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
