"""Flat colours that one can tell apart, for layers and parts."""

from __future__ import annotations

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#9467bd", "#8c564b", "#bcbd22")
"""The first seven are those of Okabe and Ito (2008), which the colour-blind can tell apart; then others."""
SAFE = 7
"""How many of `PALETTE` stay apart for the colour-blind."""
SHADES = (1.0, 0.55, 1.45)
"""Brightness of the colours' first, second and third turn; below 1 towards black, above towards white."""


def rgb(color: str) -> list[float]:
    """0..1 of `#rrggbb`.

    >>> rgb("#ff0033")
    [1.0, 0.0, 0.2]
    """
    return [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]


def flat_color(number: int) -> tuple[float, float, float]:
    """The colour of a part by its number (0..1): seven colours that the colour-blind can tell apart too, then the same
    darker and lighter; from 21 on they come again. Pictures write the number beside it.

    >>> [round(channel, 2) for channel in flat_color(0)], flat_color(3) == flat_color(24)
    ([0.0, 0.45, 0.7], True)
    """
    turn = SHADES[number // SAFE % len(SHADES)]
    plain = rgb(PALETTE[number % SAFE])
    red, green, blue = (turn * c if turn <= 1 else c + (turn - 1) * (1 - c) for c in plain)
    return red, green, blue
