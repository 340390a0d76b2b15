"""Writes docs/drawables.md, the table of every drawable's fields, from the source: `python bench/drawables_page.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, PAGE = ROOT / "smalti" / "renderers" / "drawables.py", ROOT / "docs" / "drawables.md"
HEAD = """# The drawables

What `smalti.render` takes: plain tensors and switches, one class per kind (`smalti.renderers.drawables`; what each kind
draws is on [the kinds' page](kinds.md)). Rows are primitives; n of them. Families make drawables of their parameters;
without a family they are made by hand:

```python
import torch

import smalti

n = 100
cloud = smalti.GaussianDrawable(
    means=torch.rand(n, 3),
    quaternions=torch.tensor([1.0, 0, 0, 0]).expand(n, 4),
    scales=torch.full((n, 3), 0.02),
    opacities=torch.full((n,), 0.8),
    sh_dc=torch.rand(n, 3),
)
position, up = torch.tensor([0.5, 0.5, -2.0]), torch.tensor([0.0, -1.0, 0.0])
camera = smalti.Camera.look_at(position, torch.full((3,), 0.5), up, 0.8, (64, 48))
frame = smalti.render([cloud], camera)
```

All floating tensors of a picture have one type and device. Every tensor of floats is differentiable; integers, switches
and plain numbers are not. This page is made from the source by `python bench/drawables_page.py`.
"""


def fields_of(node: ast.ClassDef) -> dict[str, tuple[str, str, str]]:
    """(shape, default, documentation) by name, in the order of the source; class variables left out."""
    found: dict[str, tuple[str, str, str]] = {}
    body = node.body
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        kind = ast.unparse(statement.annotation)
        default = "" if statement.value is None else ast.unparse(statement.value)
        if kind.startswith("ClassVar") or "init=False" in default:
            continue
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = " ".join(after.value.value.split())
        found[statement.target.id] = (shape_of(kind), default, text)
    return found


def shape_of(kind: str) -> str:
    """An annotation as a reader says it: [n, 3] for tensors, the words for switches."""
    tensor = re.search(r"(Float|Int)\[Tensor, '([^']*)'\]", kind)
    if tensor:
        size = "[" + ", ".join(tensor[2].split()) + "]"
        return f"{size} integers" if tensor[1] == "Int" else size
    words = re.search(r"Literal\[(.*)\]", kind)
    return " or ".join(word.strip("' ") for word in words[1].split(",")) if words else kind


def page() -> str:
    """The whole text."""
    classes = {
        node.name: node for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
    }
    known: dict[str, tuple[str, str, str]] = {}
    for node in classes.values():
        for name, texts in fields_of(node).items():
            if texts[2]:
                known.setdefault(name, texts)
    parts = [HEAD]
    for name, node in classes.items():
        if not name.endswith("Drawable"):
            continue
        bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
        columns: dict[str, tuple[str, str, str]] = {}
        for each in [*bases, node]:
            if each.name != "_Splat":
                columns |= fields_of(each)
        if not columns:
            continue  # the protocol
        if name == "SurfelDrawable":
            columns["scales"] = ("[n, 2]", *columns["scales"][1:])
        about = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        lines = [
            f"\n## {name}\n",
            about,
            "",
            "| field | shape or type | default | meaning |",
            "| --- | --- | --- | --- |",
        ]
        for field, (shape, default, text) in columns.items():
            told = text or known.get(field, ("", "", ""))[2]
            if not told:
                raise SystemExit(f"{name}.{field} has no documentation")
            cells = [f"`{field}`", shape.replace("[n, a]", "[n, 3]"), f"`{default}`" if default else "", told]
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
