"""The fused door: drawables and a camera in, a frame out, by the chosen backend."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.backends import BackendError, choose
from smalti.renderers.drawables import BoxDrawable, Drawable, GaussianDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.settings import RenderSettings

MOST_CHANNELS = {"triangle": 64, "box": 256}
"""Colour, features and normal of a picture that holds the kind (kTriangleChannels, kBoxMostChannels)."""


def render(
    drawables: Sequence[Drawable],
    camera: Camera,
    *,
    background: Tensor | None = None,
    settings: RenderSettings | None = None,
    backend: str = "auto",
) -> Frame:
    """Composite `drawables` over `background` as seen by `camera`.

    Args:
        drawables: at least one, of any kinds; primitives are numbered through in the order given, which also breaks
            depth ties. Those without features count as zero in the features of the others.
        camera: a pinhole camera.
        background: colour [3] or picture [h, w, 3]; black by default. Differentiable.
        settings: see `RenderSettings`. Without any, EWA Gaussians alone are drawn in the order `centre`, as 3DGS does,
            and everything else in the exact order, `ray`.
        backend: `"auto"` (by the tensors' device), `"cpu"`, `"cuda"`, `"oracle"`, or `"gsplat"` (that package, on CUDA,
            for EWA Gaussians alone: `smalti.renderers.gsplat_backend`). Raises BackendError where it cannot be used.

    Gradients reach every tensor of the drawables, the background, and the camera's rotation, translation and
    intrinsics (as free matrices; keep the rotation on SO(3) by your parametrisation).
    """
    validate(drawables, camera, background)
    settings = settings or default_settings(drawables)
    if backend == "oracle":
        from smalti.renderers.oracle import render_oracle

        return render_oracle(drawables, camera, background, settings)
    device = drawables[0].device
    if backend == "emulator":
        from smalti.renderers.engine.cuda import render_emulated

        return render_emulated(drawables, camera, background, settings)
    if backend == "gsplat" and device.type == "cuda":
        from smalti.renderers.gsplat_backend import render_gsplat

        return render_gsplat(drawables, camera, background, settings)
    if backend not in ("auto", device.type) or device.type not in ("cpu", "cuda"):
        # What does not fit: the one place that knows why, and the remedy. It raises.
        backend = choose(backend, device)
        raise BackendError(f"the back end {backend!r} does not draw through `render`")
    if device.type == "cuda":
        from smalti.renderers.engine.cuda import render_cuda

        return render_cuda(drawables, camera, background, settings)
    from smalti.renderers.engine.cpu import render_cpu

    return render_cpu(drawables, camera, background, settings)


def default_settings(drawables: Sequence[Drawable]) -> RenderSettings:
    """Of a render that states none: exact order where one key per primitive would draw another picture."""
    return RenderSettings(order="centre" if all(isinstance(d, GaussianDrawable) for d in drawables) else "ray")


def validate(drawables: Sequence[Drawable], camera: Camera, background: Tensor | None) -> None:
    """One check at the public edge, so that the kernels may trust shapes and devices."""
    if isinstance(drawables, Drawable):
        raise ValueError(f"render: expected a list of drawables, got one {type(drawables).__name__}; write [drawable]")
    if not drawables:
        raise ValueError("render: expected at least one drawable")
    if camera.model != "PINHOLE" or any(camera.distortion):
        raise ValueError(
            f"render: expected a pinhole camera, got {camera.model}; "
            "undistort the picture first (smalti.cameras.undistort)"
        )
    first = drawables[0]
    for k, drawable in enumerate(drawables):
        if drawable.dtype != first.dtype or drawable.device != first.device:
            raise ValueError(f"render: drawable {k} has another dtype or device than drawable 0")
    _validate_boxes(drawables)
    channels = 6 + max(drawable.feature_count for drawable in drawables)
    for kind, most in MOST_CHANNELS.items():
        if channels > most and any(drawable.kind == kind for drawable in drawables):
            raise ValueError(
                f"render: pictures with the kind {kind!r} hold at most {most - 6} features, got {channels - 6}; "
                "render them in several pictures"
            )
    if background is not None and not isinstance(background, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"render: background: expected a tensor, got {type(background).__name__}; torch.tensor(it)")
    if background is not None and tuple(background.shape) not in ((3,), (camera.height, camera.width, 3)):
        shape = (camera.height, camera.width, 3)
        raise ValueError(f"render: background: expected shape (3,) or {shape}, got {tuple(background.shape)}")


def _validate_boxes(drawables: Sequence[Drawable]) -> None:
    """Boxes of one picture share their grid of cells, and the additive rule is for boxes alone."""
    boxes = [drawable for drawable in drawables if isinstance(drawable, BoxDrawable)]
    steps = sorted({box.step for box in boxes})
    if len(steps) > 1:
        raise ValueError(
            f"render: boxes of one picture are marched on one grid, but their steps are {steps}; give all the same step"
        )
    adding = [box for box in boxes if box.accumulation == "additive"]
    if adding and len(adding) < len(drawables):
        raise ValueError(
            "render: accumulation='additive' is for pictures of such boxes alone; "
            "use 'exponential' for boxes among other drawables"
        )
