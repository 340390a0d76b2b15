"""Codebooks: 256 numbers for many, and a palette of vectors for many vectors. Deterministic; CPU."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

CODEBOOK_SIZE = 256
BLOCK = 1 << 22
"""Distances held at a time while vectors are assigned: 16 MB."""
_CELLS = 4096
_STRIDE = 4096
"""Numbers that are converted at a time."""
FLAT_PAIRS = 1 << 30
"""Vectors times palette rows up to which the palette is found in one level."""


def scalar_codebook(
    values: Float[np.ndarray, "..."], rounds: int = 20
) -> tuple[Float[np.ndarray, "256"], UInt8[np.ndarray, "..."]]:
    """256 ascending numbers that stand for all `values`, and for every value the index of the nearest one.

    Neighbouring cells are merged, cheapest pair first, until 256 are left (Equitz 1989), so that lonely values far out
    keep numbers of their own; then `rounds` rounds of Lloyd's algorithm. At most 256 different values come back
    exactly.
    """
    ordered = np.sort(values, axis=None)
    if len(ordered) == 0:
        return np.zeros(CODEBOOK_SIZE, np.float32), np.zeros(values.shape, np.uint8)
    centres = _merged(ordered)
    if len(centres) == CODEBOOK_SIZE:
        centres = _lloyd(ordered, centres, rounds)
    book = np.pad(np.sort(centres), (0, CODEBOOK_SIZE - len(centres)), mode="edge").astype(np.float32)
    middles = 0.5 * (book[1:].astype(np.float64) + book[:-1])
    rows = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _STRIDE):
        part = slice(start, start + _STRIDE)
        rows[part] = np.searchsorted(middles, values[part])
    return book, rows


class _Sums:
    """Sums of the first numbers of a list, in float64 but without holding as many."""

    def __init__(self, ordered: Float[np.ndarray, "n"]) -> None:
        self.ordered = ordered
        blocks = np.add.reduceat(ordered, np.arange(0, len(ordered), _STRIDE), dtype=np.float64)
        self.blocks = np.concatenate([[0.0], np.cumsum(blocks)])

    def __getitem__(self, ends: Int[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
        """Of the first `ends` numbers each."""
        whole = ends // _STRIDE
        over = [
            float(self.ordered[first * _STRIDE : end].sum(dtype=np.float64))
            for first, end in zip(whole.tolist(), ends.tolist(), strict=True)
        ]
        return self.blocks[whole] + np.array(over)


def _merged(ordered: Float[np.ndarray, "n"]) -> Float[np.ndarray, "k"]:
    """Means of at most 256 cells. Before merging: a few thousand cells, of equal width and of equal count."""
    edges = np.concatenate(
        [np.linspace(ordered[0], ordered[-1], _CELLS), ordered[np.linspace(0, len(ordered) - 1, _CELLS).astype(int)]]
    )
    bounds = np.unique(np.concatenate([np.searchsorted(ordered, edges.astype(ordered.dtype)), [len(ordered)]]))
    sums = _Sums(ordered)
    sizes = np.diff(bounds).astype(np.float64).tolist()
    means = (np.diff(sums[bounds]) / np.diff(bounds)).tolist()
    after = [*range(1, len(means)), -1]
    before = [*range(-1, len(means) - 1)]
    stamps = [0] * len(means)

    def cost(left: int) -> tuple[float, int, int, int]:
        right = after[left]
        rise = sizes[left] * sizes[right] / (sizes[left] + sizes[right]) * (means[left] - means[right]) ** 2
        return rise, left, stamps[left], stamps[right]

    queue = [cost(left) for left in range(len(means) - 1)]
    heapq.heapify(queue)
    left_over = len(means)
    while queue and (left_over > CODEBOOK_SIZE or queue[0][0] == 0.0):
        _, left, stamp, right_stamp = heapq.heappop(queue)
        right = after[left]
        if sizes[left] == 0 or right < 0 or stamp != stamps[left] or right_stamp != stamps[right]:
            continue  # one of the two has changed since
        total = sizes[left] + sizes[right]
        means[left] = (sizes[left] * means[left] + sizes[right] * means[right]) / total
        sizes[left], sizes[right] = total, 0.0
        after[left] = after[right]
        stamps[left] += 1
        left_over -= 1
        if after[left] >= 0:
            before[after[left]] = left
            heapq.heappush(queue, cost(left))
        if before[left] >= 0:
            heapq.heappush(queue, cost(before[left]))
    return np.array([mean for mean, size in zip(means, sizes, strict=True) if size])


def _lloyd(ordered: Float[np.ndarray, "n"], centres: Float[np.ndarray, "256"], rounds: int) -> Float[np.ndarray, "256"]:
    sums = _Sums(ordered)
    for _ in range(rounds):
        cuts = np.searchsorted(ordered, (0.5 * (centres[1:] + centres[:-1])).astype(ordered.dtype))
        bounds = np.concatenate([[0], cuts, [len(ordered)]])
        sizes = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(sizes, 1)
        centres = np.where(sizes > 0, means, centres)
    return centres


def vector_palette(
    vectors: Float[Tensor, "n d"], size: int, rounds: int = 8
) -> tuple[Float[Tensor, "k d"], Int[Tensor, "n"]]:
    """At most `size` vectors that stand for all `vectors`, and for each the row of its stand-in.

    k-means; beyond FLAT_PAIRS in two levels (about sqrt(size) groups, then each group by itself), so that the time
    grows with n sqrt(size), not n size. As many vectors as `size` or fewer come back exactly. Not differentiable.
    """
    n = len(vectors)
    if n <= size:
        return vectors.clone(), torch.arange(n)
    generator = torch.Generator().manual_seed(0)
    if n * size <= FLAT_PAIRS:
        return _cluster(vectors, size, rounds, generator)
    groups = max(1, round(size**0.5))
    centres, group = _cluster(vectors, groups, rounds, generator)
    errors = torch.zeros(groups).index_add_(0, group, (vectors - centres[group]).square().sum(dim=1))
    order = torch.argsort(group, stable=True)
    sizes = torch.bincount(group, minlength=groups)
    shares = _shares(sizes, errors, size)
    palette: list[Tensor] = []
    labels = torch.empty(n, dtype=torch.int64)
    start = made = 0
    for count, share in zip(sizes.tolist(), shares.tolist(), strict=True):
        rows = order[start : start + count]
        start += count
        if count:
            centres, part = _cluster(vectors[rows], share, rounds, generator)
            labels[rows] = part + made
            palette.append(centres)
            made += len(centres)
    return torch.cat(palette), labels


def _shares(sizes: Int[Tensor, "g"], errors: Float[Tensor, "g"], total: int) -> Int[Tensor, "g"]:
    """How many rows each group gets: by its squared error, at least one, at most its size, at most `total` in all."""
    shares = (sizes > 0).long()
    for _ in range(16):  # what full groups leave over goes to the others
        left = total - int(shares.sum())
        weights = torch.where(shares < sizes, errors.double() + 1e-30, 0.0)
        added = (left * weights / weights.sum().clamp_min(1e-300)).long()
        shares = torch.minimum(shares + added, sizes)
    return shares


def _cluster(
    vectors: Float[Tensor, "n d"], size: int, rounds: int, generator: torch.Generator
) -> tuple[Float[Tensor, "k d"], Int[Tensor, "n"]]:
    """k-means (Lloyd 1982); a centre that nobody is nearest to goes to the worst row.

    It starts from rows drawn without replacement, half by chance and half by their distance from the mean.
    """
    n = len(vectors)
    if n <= size:
        return vectors.clone(), torch.arange(n)
    far = (vectors - vectors.mean(dim=0)).square().sum(dim=1)
    weights = far / far.sum().clamp_min(1e-30) + 1.0 / n
    keys = torch.empty(n).exponential_(generator=generator) / weights  # the smallest are such a draw
    centres = vectors[torch.topk(keys, size, largest=False).indices].clone()
    for _ in range(rounds):
        labels, errors = _nearest(vectors, centres)
        counts = torch.bincount(labels, minlength=size)
        sums = torch.zeros_like(centres).index_add_(0, labels, vectors)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
        empty = torch.nonzero(counts == 0).squeeze(1)
        centres[empty] = vectors[torch.topk(errors, len(empty)).indices]
    return centres, _nearest(vectors, centres)[0]


def _nearest(
    vectors: Float[Tensor, "n d"], centres: Float[Tensor, "k d"]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Row of the nearest centre and squared distance."""
    labels = torch.empty(len(vectors), dtype=torch.int64)
    errors = torch.empty(len(vectors))
    squares = centres.square().sum(dim=1)
    rows = max(1, BLOCK // len(centres))
    for start in range(0, len(vectors), rows):
        part = vectors[start : start + rows]
        least = torch.addmm(squares[None, :], part, centres.T, alpha=-2.0).min(dim=1)
        labels[start : start + rows] = least.indices
        errors[start : start + rows] = least.values + part.square().sum(dim=1)
    return labels, errors
