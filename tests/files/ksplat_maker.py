"""Writes `.ksplat` files for tests, from the tables of the format's description; nothing in the package writes them."""

from __future__ import annotations

import struct

import numpy as np

from smalti.files.bytewise import colours_of_dc, opacity_bytes
from smalti.files.splats import Splats

BUCKET, SIDE, RANGE = 8, 5.0, (-2.0, 1.0)


def ksplat(level: int, *sections: Splats) -> bytes:
    """A file of these sections; full buckets of eight rows, then partly filled ones of at most three."""
    head = bytearray(4096)
    head[1] = 1
    total = sum(len(splats) for splats in sections)
    struct.pack_into("<4I", head, 4, len(sections), len(sections), total, total)
    struct.pack_into("<H", head, 20, level)
    struct.pack_into("<2f", head, 36, *RANGE)
    made = [_section(level, splats) for splats in sections]
    return bytes(head) + b"".join(header for header, _ in made) + b"".join(body for _, body in made)


def _section(level: int, splats: Splats) -> tuple[bytes, bytes]:
    n, rest = len(splats), splats.sh_rest.shape[1]
    full = max(n // BUCKET - 1, 0) if level else 0
    left = n - full * BUCKET
    lengths = [min(3, left - start) for start in range(0, left, 3)] if level else []
    counts = [BUCKET] * full + lengths
    bucket = np.repeat(np.arange(len(counts)), counts)
    middles = np.zeros((len(counts), 3), np.float32)
    for index in range(len(counts)):
        own = splats.means[bucket == index]
        middles[index] = (own.min(axis=0) + own.max(axis=0)) / 2
    header = bytearray(1024)
    struct.pack_into("<4I", header, 0, n, n + 2, BUCKET, len(counts))
    struct.pack_into("<fH", header, 16, SIDE, 12)
    struct.pack_into("<I", header, 24, 32767 if level else 1)
    struct.pack_into("<2IH", header, 32, full, len(lengths), {0: 0, 3: 1, 8: 2, 15: 3}[rest])
    number = "<f2" if level else "<f4"
    if level:
        steps = np.rint((splats.means - middles[bucket]) / (SIDE / 2 / 32767) + 32767)
        means = steps.astype("<u2")
    else:
        means = splats.means.astype("<f4")
    colours = np.rint(255 * colours_of_dc(splats.sh_dc)).clip(0, 255).astype(np.uint8)
    bands = [splats.sh_rest[:, a:b].transpose(0, 2, 1).reshape(n, -1) for a, b in ((0, 3), (3, 8), (8, 15)) if a < rest]
    values = np.concatenate([np.zeros((n, 0), np.float32), *bands], axis=1)
    if level == 2:
        low, high = RANGE
        values = np.rint((values - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    else:
        values = values.astype(number)
    parts = (means, np.exp(splats.log_scales).astype(number), splats.quaternions.astype(number), colours)
    blocks = [*parts, opacity_bytes(splats.logit_opacities)[:, None], values]
    rows = np.concatenate([np.ascontiguousarray(block).view(np.uint8).reshape(n, -1) for block in blocks], axis=1)
    room = bytes(2 * rows.shape[1])
    return bytes(header), np.array(lengths, "<u4").tobytes() + middles.astype("<f4").tobytes() + rows.tobytes() + room
