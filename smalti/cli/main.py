"""The command `smalti`: a table of commands, each a module with `main(argv) -> int` that is imported when called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One line of the table."""

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "train": Command("smalti.cli.train", "train a scene from pictures; `smalti train demo` needs nothing else"),
    "eval": Command("smalti.cli.eval", "measure a trained run on its held-out views"),
    "view": Command("smalti.cli.view", "look at a run, a scene file or a data set in the browser, and edit it"),
    "render": Command("smalti.cli.render", "render pictures or a video of a trained run or a scene"),
    "export": Command("smalti.cli.export", "write a trained scene as a file for other programs"),
    "convert": Command("smalti.cli.convert", "read a file of splats, meshes or blocks and write it in another format"),
    "info": Command("smalti.cli.info", "say what a scene file, a scene folder or a run holds, column by column"),
    "check": Command("smalti.cli.check", "examine a data set before any training"),
    "doctor": Command("smalti.cli.doctor", "say what of this machine will be used, and what is missing"),
}


def usage() -> str:
    """The text of `smalti --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: smalti COMMAND [arguments]",
            "",
            "commands:",
            *lines,
            "",
            "smalti COMMAND --help   what a command understands",
            "smalti --version        the version",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0 done, 2 for a wrong call or bad data, 130 for Ctrl-C, 141 where nobody
    reads on (`smalti info FILE | head`).
    """
    try:
        code = _called(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a reader that has gone is met here, not in the interpreter's last breath
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _called(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name in ("-V", "--version", "version"):
        from smalti import __version__

        print(f"smalti {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean `smalti {near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
        print(f"smalti: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return _run(COMMANDS[name], rest)


def _run(command: Command, arguments: list[str]) -> int:
    try:
        return int(importlib.import_module(command.module).main(arguments))
    except KeyboardInterrupt:
        print("smalti: interrupted", file=sys.stderr)
        return 130
    except ValueError as error:
        # Not imported above: the class brings torch, and help and version are to be quick.
        from smalti.datasets.dataset import DatasetError

        if not isinstance(error, DatasetError):
            raise
        print(f"smalti: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
