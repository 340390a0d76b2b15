"""The fused door: drawables and a camera in, a frame out, by the chosen backend."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from smalti.cameras.camera import Camera
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

    Gradients reach every tensor of the drawables, the background, and the camera's rotation, translation and
    intrinsics (as free matrices; keep the rotation on SO(3) by your parametrisation).
    """
    from smalti.renderers.oracle import render_oracle

    settings = settings or RenderSettings()
    return render_oracle(drawables, camera, background, settings)
