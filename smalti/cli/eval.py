"""`smalti eval RUN`: measures a trained run on its held-out views, by the function that the trainer uses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from smalti.cli.failures import UsageError, reported
from smalti.cli.runs import OpenedRun, add_run_arguments, open_run


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="smalti eval", description="Measure a trained run on its held-out views.")
    add_run_arguments(result)
    result.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    result.add_argument(
        "--views",
        choices=("test", "train", "all"),
        default="test",
        help="which views (default: test, those held out)",
    )
    result.add_argument("--lpips", action="store_true", help="also LPIPS (AlexNet); needs weights, see `smalti doctor`")
    result.add_argument("--lpips-vgg", action="store_true", help="also LPIPS (VGG16)")
    result.add_argument("--rounding", action="store_true", help="round renders to 8 bit first, as written PNGs are")
    result.add_argument(
        "--exposure",
        choices=("none", "fitted"),
        default="none",
        help="fitted: gain and offset per channel are fitted to each picture first (default: none)",
    )
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Prints the figures and the protocol. Returns 0, or 2 where something is missing."""
    arguments = parser().parse_args(argv)
    opened = open_run(arguments)
    if arguments.json:
        print(json.dumps(_measure(opened, arguments, quiet=True), allow_nan=False))
    else:
        _measure(opened, arguments, quiet=False)
    return 0


def _measure(opened: OpenedRun, arguments: argparse.Namespace, quiet: bool) -> dict[str, Any]:
    from smalti.cli.progress import track
    from smalti.scene.contents import contents
    from smalti.trainers.evaluation import ViewScore, evaluate, protocol_for

    dataset, images = opened.pictures()
    train, test = opened.of_run().split(dataset)
    rows = {"test": test, "train": train, "all": list(range(len(dataset.views)))}[arguments.views]
    if not rows:
        raise UsageError("this run holds no view out; measure its training views with --views train")
    extra = [name for name, wanted in (("lpips", arguments.lpips), ("lpips_vgg", arguments.lpips_vgg)) if wanted]
    _require_weights(extra)
    options = {"rounding": arguments.rounding, "exposure": arguments.exposure, "metrics": ("psnr", "ssim", *extra)}
    protocol = protocol_for(opened.of_run().config.data, dataset, **options)
    with track("views", len(rows)) as advance:

        def on_view(_: ViewScore) -> None:
            advance()

        result = evaluate(opened.scene, images, rows, protocol, backend=opened.backend, on_view=on_view)
    kind = opened.of_run().perceptual_kind()
    if not quiet:
        count = contents(opened.scene)
        print(f"{opened.of_run().path}, step {opened.step}, {count}, {arguments.views} views")
        print("\n".join(result.lines()))
        if kind:
            print(f"trained with the perceptual term {kind!r} (loss.perceptual_kind)")
    facts = {
        "run": str(opened.of_run().path),
        "step": opened.step,
        "primitives": len(opened.scene),
        "set": arguments.views,
        "perceptual": kind,
    }
    return {**facts, **result.to_json()}


def _require_weights(names: list[str]) -> None:
    """Before minutes of rendering, not after."""
    from smalti.trainers.lpips import load_lpips

    for name in names:
        load_lpips("alex" if name == "lpips" else "vgg")
