"""The fused door: drawables and a camera in, a frame out, by the chosen backend."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.backends import BackendError, choose
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.settings import RenderSettings


def render(
    drawables: Sequence[GaussianDrawable],
    camera: Camera,
    *,
    background: Tensor | None = None,
    settings: RenderSettings | None = None,
    backend: str = "auto",
) -> Frame:
    """Composite `drawables` over `background` as seen by `camera`.

    Args:
        drawables: at least one; primitives are numbered through in the order given, which also breaks depth ties.
        camera: a pinhole camera.
        background: colour [3] or picture [h, w, 3]; black by default. Differentiable.
        settings: see `RenderSettings`.
        backend: `"auto"` (by the tensors' device), `"cpu"`, `"cuda"` or `"oracle"`.
            Raises BackendError where it cannot be used.

    Gradients reach every tensor of the drawables, the background, and the camera's rotation, translation and
    intrinsics (as free matrices; keep the rotation on SO(3) by your parametrisation).
    """
    settings = settings or RenderSettings()
    _validate(drawables, camera, background)
    if backend == "oracle":
        from smalti.renderers.oracle import render_oracle

        return render_oracle(drawables, camera, background, settings)
    device = drawables[0].means.device
    if backend == "emulator":
        from smalti.renderers.engine.cuda import render_emulated

        return render_emulated(drawables, camera, background, settings)
    if backend not in ("auto", device.type) or device.type not in ("cpu", "cuda"):
        # What does not fit: the one place that knows why, and the remedy. It raises.
        backend = choose(backend, device)
        raise BackendError(f"the back end {backend!r} does not draw through `render`")
    if device.type == "cuda":
        from smalti.renderers.engine.cuda import render_cuda

        return render_cuda(drawables, camera, background, settings)
    from smalti.renderers.engine.cpu import render_cpu

    return render_cpu(drawables, camera, background, settings)


def _validate(drawables: Sequence[GaussianDrawable], camera: Camera, background: Tensor | None) -> None:
    """One check at the public edge, so that the kernels may trust shapes and devices."""
    if not drawables:
        raise ValueError("render: expected at least one drawable")
    if camera.model != "PINHOLE" or any(camera.distortion):
        raise ValueError(
            f"render: expected a pinhole camera, got {camera.model}; "
            "undistort the picture first (smalti.cameras.undistort)"
        )
    first = drawables[0]
    width = None if first.features is None else first.features.shape[1]
    for k, d in enumerate(drawables):
        if (None if d.features is None else d.features.shape[1]) != width:
            raise ValueError(f"render: drawable {k} has another number of feature channels than drawable 0")
        if d.means.dtype != first.means.dtype or d.means.device != first.means.device:
            raise ValueError(f"render: drawable {k} has another dtype or device than drawable 0")
    if background is not None and tuple(background.shape) not in ((3,), (camera.height, camera.width, 3)):
        shape = (camera.height, camera.width, 3)
        raise ValueError(f"render: background: expected shape (3,) or {shape}, got {tuple(background.shape)}")
