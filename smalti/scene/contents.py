"""What a scene is made of, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene


def contents(scene: Scene) -> str:
    """How many of what, by layer: separate parts by what their family calls them, and how many of these are drawn.

    >>> import torch
    >>> from smalti.primitives.family import find_family
    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.contents import contents
    >>> scene, generator = demo_scene(), torch.Generator().manual_seed(0)
    >>> contents(scene)
    '20 primitives (chair 8, cloud 12)'
    >>> bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> toy = scene.add("toy", find_family("superquadrics").at_random(bounds, 3, generator, {"texture_size": 4}))
    >>> contents(scene)
    'chair 8, cloud 12, toy 3 blocks'
    >>> toy.family.parameters["logit_opacities"].data[1] = -9.0
    >>> contents(scene)
    'chair 8, cloud 12, toy 3 blocks (2 drawn)'
    """
    words = [_words(held) for held in scene]
    if any(held.family.part_noun for held in scene):
        return ", ".join(words)
    return f"{len(scene):,} primitives" + (f" ({', '.join(words)})" if len(words) > 1 else "")


def _words(held: Layer) -> str:
    """A layer's name and number; of parts `10 blocks` alone where its name is what these or the family are called."""
    count, noun, rows = len(held.family), held.family.part_noun, held.family.separate_parts()
    if not noun or rows is None:
        return f"{held.name} {count:,}"
    called = f"{count:,} {noun}" + ("s" if count != 1 else "")
    drawn = f" ({len(rows)} drawn)" if len(rows) < count else ""
    return (called if held.name in (noun, f"{noun}s", held.family.name) else f"{held.name} {called}") + drawn
