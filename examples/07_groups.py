"""Regularities among blocks: find the legs of a table, move one and all follow, set the number of a fence's posts.

A fitted scene of blocks holds four legs that are four blocks, each a little off. `scene.find_groups()` finds that they
are one leg and two mirror planes, because that is the shorter description, and makes a handle of it.

    python examples/07_groups.py
"""

from __future__ import annotations

import json

import numpy as np
import torch

from smalti.scene import Scene
from smalti.scene.groups import Groups
from smalti.scene.groups.boxes import Boxes, joined
from smalti.scene.groups.demo import box, layer_of

# 1. A table and a fence, as a fit would leave them: every block has its own error, of about a centimetre in two metres.
random = np.random.default_rng(0)
legs = [box([x, 0.35, z], [0.1, 0.7, 0.1]) for x in (-0.6, 0.6) for z in (-0.35, 0.35)]
posts = [box([-1.2 + 0.4 * k, 0.3, -1.0], [0.08, 0.6, 0.05]) for k in range(6)]
clean = joined([box([0, 0.75, 0], [1.5, 0.1, 1.0]), *legs, *posts])
blocks = Boxes(
    clean.centres + 0.006 * random.normal(size=clean.centres.shape),
    clean.rotations,
    clean.halves + 0.003 * random.normal(size=clean.halves.shape),
    clean.exponents,
)
scene = Scene(order="ray")
layer_of(scene, "blocks", blocks, torch.rand(len(blocks), 3, generator=torch.Generator().manual_seed(0)))


def state() -> dict[str, bytes]:
    """The scene to the byte."""
    return {name: value.numpy().tobytes() for name, value in scene.state()[0].items()}


before = state()

# 2. Find. Nothing is changed by it; the description's length says how much shorter the scene can be told.
groups = scene.find_groups()
print(groups)
print(f"{groups.separate_cost:.0f} as {len(blocks)} blocks, {groups.cost:.0f} with groups; in none: {groups.free}")
fence, table = sorted(groups, key=lambda group: -len(group.members))[:2]
assert (fence.kind, table.kind) == ("array", "double_mirror")
mean, worst = table.residual
print(f"legs lie {mean:.3f} beside their model on average, {worst:.3f} at most ({table.tolerance:.3f} allowed)")

# 3. Move one leg outwards, and all follow: across each plane the other way. What each was off, it stays off.
done = table.move([0.05, 0.0, 0.03], member=0)
print(f"moved one leg: {len(done)} changed")

# 4. Numbers of the regularity. New posts look like their nearest neighbour; overlaps that this makes are told.
print(f"posts: {fence.parameters}")
done = fence.set(count=8, mode="fit")  # between the same ends
print(f"{len(done.added)} posts more: {done.added}; overlaps: {[str(each) for each in done.overlaps] or 'none'}")
done = fence.extend(3)  # and on at that distance
print(f"{len(fence.members)} posts, made here: {len(fence.synthesised)}")
done = fence.set(spacing=0.05)
print(f"too close: {len(done.overlaps)} pairs overlap, {max(each.share for each in done.overlaps):.0%} at most")
scene.undo()

# 5. Snap: members lie exactly where the model says, until they are released.
table.apply()
print(f"snapped: {table.residual[1]:.6f} off at most")
table.release()

# 6. One post goes its own way; what is left of the fence are two shorter ones.
parts = fence.break_member(4)
print(f"broken: {[len(part.members) for part in parts]} posts; in no group: {groups.free}")

# 7. The scene as a program, and groups as JSON beside a saved scene.
tree = scene.program(groups)
print(f"program: {[each['fn'] for each in tree['args']]}, {len(json.dumps(tree))} bytes")
assert scene.from_program(tree).counts() == scene.counts()
again = Groups.from_plain(scene, json.loads(json.dumps(groups.to_plain())))
assert again.cost == groups.cost

# 8. All of it can be taken back, to the byte, the groups with it.
while scene.history.done:
    print(f"undone: {scene.undo()}")
assert state() == before
assert (len(fence.members), len(groups)) == (6, len(scene.find_groups()))
