"""Codebooks and palettes: exact where there is room, near the best elsewhere, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smalti.files import palettes
from smalti.files.palettes import scalar_codebook, vector_palette


def test_up_to_256_different_numbers_come_back_exactly() -> None:
    numbers = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    values = np.random.default_rng(1).choice(numbers, (500, 3))
    book, rows = scalar_codebook(values)
    np.testing.assert_array_equal(book[rows], values)
    assert (np.diff(book) >= 0).all()


@pytest.mark.parametrize("values", [np.empty((0, 3), np.float32), np.full((7, 3), -2.5, np.float32)])
def test_none_and_one(values: np.ndarray) -> None:
    book, rows = scalar_codebook(values)
    assert book.shape == (256,)
    assert np.isfinite(book).all()
    np.testing.assert_array_equal(book[rows], values)


def test_near_the_best_codebook_of_a_known_density() -> None:
    """Panter and Dite: with N levels the least mean squared error is (integral of p^(1/3))^3 / (12 N^2)."""
    values = np.random.default_rng(0).standard_normal(200_000)
    book, rows = scalar_codebook(values)
    best = 6 * np.sqrt(3) * np.pi / (12 * 256**2)  # for the normal density of deviation 1
    assert np.square(book[rows] - values).mean() == pytest.approx(best, rel=0.05)
    nearest = np.abs(book[None, :] - values[:2000, None]).min(axis=1)
    np.testing.assert_allclose(np.abs(book[rows] - values)[:2000], nearest, rtol=0, atol=1e-6)


def test_lonely_values_far_out_keep_numbers_of_their_own() -> None:
    values = np.concatenate([np.random.default_rng(0).standard_normal(50_000), [40.0, -100.0, 1000.0]])
    book, rows = scalar_codebook(values)
    np.testing.assert_allclose(book[rows][-3:], values[-3:], rtol=1e-6)
    assert np.sqrt(np.square(book[rows] - values).mean()) < 0.02


@pytest.mark.parametrize("flat_pairs", [1 << 30, 0])
def test_planted_clusters_are_found(monkeypatch: pytest.MonkeyPatch, flat_pairs: int) -> None:
    """More rows than the palette holds, but no more different places: in one level and in two."""
    monkeypatch.setattr(palettes, "FLAT_PAIRS", flat_pairs)
    generator = torch.Generator().manual_seed(0)
    places = 10 * torch.randn(40, 9, generator=generator)
    vectors = places[torch.randint(40, (3000,), generator=generator)] + 1e-3 * torch.randn(3000, 9, generator=generator)
    palette, labels = vector_palette(vectors, 400)
    assert len(palette) <= 400
    assert float((palette[labels] - vectors).square().mean().sqrt()) < 1.1e-3


@pytest.mark.parametrize("flat_pairs", [1 << 30, 0])
def test_every_row_has_its_nearest_in_its_group_and_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch, flat_pairs: int
) -> None:
    monkeypatch.setattr(palettes, "FLAT_PAIRS", flat_pairs)
    vectors = torch.randn(2000, 6, generator=torch.Generator().manual_seed(1))
    palette, labels = vector_palette(vectors, 256)
    again, same = vector_palette(vectors, 256)
    assert torch.equal(palette, again)
    assert torch.equal(labels, same)
    assert 200 <= len(palette) <= 256
    error = float((palette[labels] - vectors).square().mean())
    drawn = torch.cdist(vectors, vectors[:256]).min(dim=1).values.square().sum() / vectors.numel()
    assert error < (0.75 if flat_pairs else 0.85) * float(drawn)  # better than rows drawn by chance
    if flat_pairs:
        assert torch.equal(labels, torch.cdist(vectors, palette).argmin(dim=1))


def test_room_for_all() -> None:
    vectors = torch.randn(50, 9)
    palette, labels = vector_palette(vectors, 50)
    assert torch.equal(palette[labels], vectors)
