"""The CUDA engine's source text, composed for the kinds that a scene contains. Knows no compiler and no device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from smalti.renderers.engine.parameters import size_checks

ENGINE = Path(__file__).parent
INCLUDE = ENGINE / "include"
CHANNEL_CHUNKS = (3, 4, 8)
"""Channels that one launch of a tile kernel keeps in registers; more are drawn in several launches of 8."""


@dataclass(frozen=True)
class KindSource:
    """What the composition has to know about a kind; its C++ side is described at the top of lists_cuda.h."""

    name: str
    header: Path
    """Included as it is; may lie outside of the package."""
    struct: str
    """Class template `<bool smooth, bool absolute>` in namespace smalti."""
    kernels: str
    """Macro that expands to the kind's own entry points, empty for none."""
    record_reals: int
    """Scalars of its `Screen`."""
    moments: int
    absolute_moments: int
    """Moments with `absolute_gradient`."""


GAUSSIAN = KindSource(
    "gaussian", INCLUDE / "kinds" / "gaussian_cuda.h", "GaussianKind", "SMALTI_GAUSSIAN_KERNELS", 8, 6, 8
)


@dataclass(frozen=True)
class Variant:
    """One pair of tile kernels: their number of channels in registers, and whether the cut-off is the smooth one."""

    channels: int
    smooth: bool

    @property
    def name(self) -> str:
        """Suffix of the kernels' names."""
        return f"{self.channels}{'_smooth' if self.smooth else ''}"


def variant_for(channels: int, smooth: bool) -> Variant:
    """The variant that draws `channels` channels in the fewest launches."""
    return Variant(next((c for c in CHANNEL_CHUNKS if c >= channels), CHANNEL_CHUNKS[-1]), smooth)


ALL_VARIANTS = tuple(Variant(channels, smooth) for channels in CHANNEL_CHUNKS for smooth in (False, True))


@dataclass(frozen=True)
class KernelSource:
    """One module of kernels."""

    kinds: tuple[KindSource, ...]
    variants: tuple[Variant, ...]
    dtype: torch.dtype
    """float32, or float64 (for tests)."""

    @property
    def record_bytes(self) -> int:
        """Size of one entry of the record table: the largest kind's."""
        return self.dtype.itemsize * max(kind.record_reals for kind in self.kinds)

    def moments(self, absolute: bool) -> int:
        """Scalars in front of the channels in a row of gradients."""
        return max(kind.absolute_moments if absolute else kind.moments for kind in self.kinds)

    def kernels(self) -> list[str]:
        """Names of the entry points that do not belong to a kind."""
        stems = ("forward", "statistics", "backward", "backward_absolute")
        tiles = [f"tile_{stem}_{variant.name}" for variant in self.variants for stem in stems]
        return ["emit_entries", "tile_ranges", "sum_entries", *tiles]

    def text(self) -> str:
        """The translation unit, to be compiled with `INCLUDE` among the include folders."""
        structs = ", ".join(f"{kind.struct}<smooth, absolute>" for kind in self.kinds)
        variants = " ".join(f"X({v.name}, {v.channels}, {str(v.smooth).lower()})" for v in self.variants)
        lines = ["#define SMALTI_DOUBLE 1"] if self.dtype == torch.float64 else []
        lines += [f'#include "{kind.header}"' for kind in self.kinds]
        lines += [
            f"#define SMALTI_KIND_LIST {structs}",
            f"#define SMALTI_KIND_KERNELS {' '.join(kind.kernels for kind in self.kinds)}",
            f"#define SMALTI_RECORD_BYTES {self.record_bytes}",
            f"#define SMALTI_MOMENTS {self.moments(False)}",
            f"#define SMALTI_MOMENTS_ABSOLUTE {self.moments(True)}",
            f"#define SMALTI_VARIANTS(X) {variants}",
            f'#include "{ENGINE / "cuda" / "kernels.cu"}"',
            size_checks(self.dtype),
        ]
        return "\n".join(lines) + "\n"

    def digest(self) -> str:
        """SHA-256 over this text and all the files that it may include; the same wherever the package lies."""
        own = self.text().replace(str(ENGINE), "")
        outside = [kind.header.read_bytes() for kind in self.kinds if not kind.header.is_relative_to(ENGINE)]
        return hashlib.sha256(b"\0".join([own.encode(), engine_digest(), *outside])).hexdigest()


@cache
def engine_digest() -> bytes:
    """SHA-256 over the package's own headers and kernels."""
    files = sorted([*INCLUDE.rglob("*.h"), *(ENGINE / "cuda").rglob("*.cu")])
    # Sizes first, so that no two sets of files read alike.
    parts = [f"{path.relative_to(ENGINE)} {path.stat().st_size}\n".encode() + path.read_bytes() for path in files]
    return hashlib.sha256(b"".join(parts)).digest()
