"""`smalti train`: a capture becomes a scene."""

from __future__ import annotations

import re
import socket
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.cli.failures import UsageError, reported

if TYPE_CHECKING:
    from smalti.trainers.display import Display
    from smalti.trainers.trainer import Trainer
    from smalti.trainers.watching import Watcher

USAGE = """usage: smalti train PRESET|FILE --data PATH [--out RUN] [--init-from SCENE] [--FIELD VALUE ...]
       smalti train PRESET|FILE --data PATH --seeds N [--jobs N] [--FIELD VALUE ...]
       smalti train --resume RUN [--steps N] [--view]
       smalti train demo

  PRESET|FILE        {presets}, or a YAML file (which may name a preset to start from)
  --data PATH        folder or file of the capture; `demo` is the built-in one
  --data-format NAME format of the data where it cannot be told (data.format)
  --out RUN          run folder; by default runs/<data>-<preset>-<date>
  --init-from SCENE  start from a scene file instead of points
  --resume RUN       continue an interrupted run, bit for bit; with --steps N to another end
  --seeds N          the same run with N seeds, from run.seed on, in processes of their own; the best is kept by name
  --jobs N           how many of them at a time (by default one per core, on a card one)
  --view [HOST:][PORT]  watch it in the browser (extra `viewer`); by default this machine alone, at a free port
  --set FIELD=VALUE  any option below; the same as --FIELD VALUE. A name without a dot will do where it is unique.

A short trial: --stretch 0.1 --downscale 4. `smalti train PRESET --help` shows that preset's own values.
"""
REMEDY = "Lower the learning rates (--learning_rates.PARAMETER, --optimizer.warmup); metrics.jsonl says when it began"


@dataclass
class Call:
    """The command line, read."""

    source: str = ""
    data: str = ""
    out: str = ""
    init_from: str = ""
    resume: str = ""
    view: str | None = None
    """`[HOST:][PORT]` where the training is to be watched; None: nowhere."""
    seeds: int = 0
    """How many runs that differ in their seed; 0: one run, as ever."""
    jobs: int = 0
    """How many of them at a time; 0: as many as is sensible."""
    overrides: dict[str, Any] = field(default_factory=dict)


@reported
def main(argv: Sequence[str]) -> int:
    """Returns 0 for a finished run, 1 for one whose scene is lost (NaN, nothing to see), 2 for a bad call or
    configuration, 130 where Ctrl-C saved and stopped it.
    """
    from smalti.configs.resolve import ConfigError
    from smalti.trainers.guard import BadGradientError

    arguments = list(argv)
    try:
        if not arguments or any(word in ("-h", "--help") for word in arguments):
            print(help_text(arguments[0] if arguments and not arguments[0].startswith("-") else ""))
            return 0 if arguments else 2
        return _train(read_call(arguments))
    except (ConfigError, FileExistsError, BadGradientError) as error:
        print(f"smalti: {error}", file=sys.stderr)
        return 2


def read_call(arguments: Sequence[str]) -> Call:
    """Positional source, the named options, and everything else as overrides. UsageError says what is wrong."""
    from smalti.configs.resolve import full_name, parse_value

    call, pending = Call(), list(arguments)
    while pending:
        word = pending.pop(0)
        if not word.startswith("--"):
            if call.source:
                hint = f"the capture is given as --data {word}" if Path(word).exists() else "options begin with --"
                raise UsageError(f"unexpected {word!r}: the preset is {call.source!r} already; {hint}")
            call.source = word
            continue
        name, equals, value = word[2:].partition("=")
        if name == "view":
            call.view = value if equals else pending.pop(0) if pending and is_address(pending[0]) else ""
            continue
        if not equals:
            if not pending:
                raise UsageError(f"--{name} needs a value")
            value = pending.pop(0)
        if name == "set":
            name, equals, value = value.partition("=")
            if not equals:
                raise UsageError(f"--set {name}: write --set FIELD=VALUE")
        if name in ("data", "out", "resume", "init-from"):
            setattr(call, name.replace("-", "_"), value)
        elif name in ("seeds", "jobs"):
            setattr(call, name, _natural(name, value))
        elif name == "data-format":
            call.overrides["data.format"] = value
        else:
            call.overrides[full_name(name)] = parse_value(value)
    other = set(call.overrides) - {"run.steps"}
    if call.resume and (call.source or call.data or call.out or call.init_from or other):
        raise UsageError(
            "--resume continues a run as it was configured; --steps N alone may change, for a longer run. With other "
            f"options start a new one from its scene: smalti train PRESET --data PATH --init-from {call.resume}/scene"
        )
    if call.resume and call.seeds:
        raise UsageError("--resume continues all seeds of a folder that --seeds made; leave --seeds out")
    if call.seeds and call.view is not None:
        raise UsageError("--view watches one training; leave it out with --seeds, and look at the best afterwards")
    if call.jobs and not (call.seeds or call.resume):
        raise UsageError("--jobs says how many seeds are trained at a time; it goes with --seeds N")
    if not call.resume and not call.source:
        raise UsageError("name a preset or a configuration file; `smalti train --help` lists them")
    return call


def _natural(name: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise UsageError(f"--{name} {value}: expected a number from 1 on")
    return int(value)


def is_address(word: str) -> bool:
    """Whether the word after `--view` is where to listen: a port, or HOST:PORT."""
    return bool(re.fullmatch(r"(\[[0-9a-fA-F:.]+\]:|[A-Za-z0-9.-]+:)?\d+", word))


def _train(call: Call) -> int:
    from smalti.cli import train_seeds
    from smalti.configs.resolve import resolve
    from smalti.trainers.run import Run
    from smalti.trainers.seeds import is_seeds

    if call.resume and is_seeds(call.resume):
        if call.overrides or call.view is not None:
            raise UsageError(
                f"{call.resume} holds several seeds, which are continued as they were configured; one of them goes on "
                f"to other steps, or is watched, by its own folder: --resume {Path(call.resume) / 'seed-0'}"
            )
        return train_seeds.go_on(Path(call.resume), call.jobs)
    if call.resume:
        run = Run.open(call.resume)
        if call.jobs:
            raise UsageError(f"--jobs says how many seeds are trained at a time; {call.resume} is a single run")
        if call.overrides:
            print(f"note: {run.extend(call.overrides['run.steps'])}")
        return conduct(run, resume=bool(run.steps()), view=call.view)  # killed before its first checkpoint: anew
    named = {"data.path": _absolute(call.data), "init_from": _absolute(call.init_from)}
    overrides = {**call.overrides, **{key: value for key, value in named.items() if value}}
    config = resolve(call.source, overrides)
    if not config.data.path:
        raise UsageError(
            "say what to train on: --data PATH (a COLMAP folder, a transforms.json, ...), or `smalti train demo`"
        )
    path = Path(call.out) if call.out else default_folder(config.data.path, config.preset or Path(call.source).stem)
    if call.seeds:
        return train_seeds.start(path, config, call.seeds, call.jobs)
    return conduct(Run.planned(path, config), resume=False, view=call.view)


def _absolute(path: str) -> str:
    """As a full path where it exists, so that the run can be continued from any folder. The word `demo` is no path."""
    return str(Path(path).resolve()) if path not in ("", "demo") and Path(path).exists() else path


def default_folder(data: str, preset: str) -> Path:
    """runs/<data>-<preset>-<date>, the data by its folder's or file's name."""
    path = Path(data)
    name = path.stem if path.suffix else path.name
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    parts = [name] if name == preset else [name, preset]
    return Path("runs") / "-".join([*parts, stamp])


def conduct(
    run: Any,
    *,
    resume: bool,
    view: str | None = None,
    display: Display | None = None,
    at_finish: Callable[[str], None] | None = None,
    at_end: Callable[[Trainer], None] | None = None,
) -> int:
    """Train, finish, and say where everything is. `view`: see `Call`. Notes go to the display where one is given;
    `at_finish` is called with the name of each thing that is made after the training, `at_end` with the finished
    trainer.
    """
    from smalti.configs.stretch import beyond_the_end
    from smalti.scene.contents import contents
    from smalti.trainers.display import make_display
    from smalti.trainers.finish import finish
    from smalti.trainers.health import ailments
    from smalti.trainers.loop import train
    from smalti.trainers.threads import single_torch_thread
    from smalti.trainers.trainer import Trainer, chosen_device

    say = print if display is None else display.say
    door = opened_door(view)  # before all else, so that a port that is taken costs no wait
    print(
        "preparing the pictures and the first scene" if not resume else f"preparing to continue {run.path}", flush=True
    )
    with single_torch_thread(chosen_device(run.config.run.device)):
        trainer = Trainer(run, resume=resume)
        run.begin()  # not before: what cannot start leaves no folder behind
        run.keep()
        missed = beyond_the_end(run.config)
        if missed:
            short = f"note: {run.config.run.steps} steps are too few for the schedule: {'; '.join(missed)}"
            say(f"{short} (--stretch shortens a whole preset instead)")
        for text in (*(notice.text for notice in trainer.dataset.notices), *trainer.notices):
            say(f"note: {text}")
        with trainer.clock:  # a picture of it is drawn
            told = [] if trainer.alignment is None else trainer.alignment.record(run.path)
        for line in told:
            say(line)
        if resume and trainer.step_number >= run.config.run.steps:
            say("note: the run is at its end; what it leaves is made again (with --steps N it goes on)")
        begin = f"from step {trainer.step_number}" if resume else "from the start"
        print(
            f"training {run.path} {begin}: {len(trainer.train_rows)} views, {len(trainer.test_rows)} held out, "
            f"{contents(trainer.scene)}, {drawn_by(trainer)}"
        )
        with watched(trainer, door) as watcher:
            ending = train(trainer, display or make_display(str(run.path)), watcher)
        resume_line = f"continue with: smalti train --resume {run.path}"
        if ending == "interrupted":
            print(f"saved at step {trainer.step_number}; {resume_line}")
            return 130
        if ending == "out of time":
            print(f"the wall-clock limit ended the run at step {trainer.step_number}; {resume_line}")
        for line in finish(trainer, at_finish):
            print(line)
        found = ailments(trainer)
        if at_end is not None:
            at_end(trainer)
        if found:
            print(f"smalti: the training failed: {'; '.join(found)}. {REMEDY}", file=sys.stderr)
        return 1 if found else 0


@contextmanager
def watched(trainer: Trainer, door: tuple[str, socket.socket] | None) -> Generator[Watcher | None]:
    """A viewer of the training at the door, for as long as the block lasts; where there is a door."""
    if door is None:
        yield None
        return
    from smalti.viewer.live import Live
    from smalti.viewer.server import Viewer

    live = Live(trainer)
    with Viewer(live.stage, door[0], listening=door[1]) as viewer:
        print(f"watch it at {viewer.url}", flush=True)
        again = f"look at it again with: smalti view {trainer.run.path}"
        try:
            yield live
        finally:
            viewer.say_farewell(f"The training has ended, and this page with it; {again}")
    print(again)


def opened_door(view: str | None) -> tuple[str, socket.socket] | None:
    """(host, listening socket) of `--view`; OSError where the port cannot be had."""
    if view is None:
        return None
    from smalti.cli.view import require_viewer

    require_viewer()
    from smalti.viewer.front import listen
    from smalti.viewer.server import DEFAULT_PORT

    if view and not is_address(view):
        raise UsageError(f"--view {view}: write --view, --view PORT or --view HOST:PORT")
    host, _, port = view.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    return host, listen(host, int(port) if port else None, DEFAULT_PORT)


def help_text(source: str = "") -> str:
    """The usage and every option with its documentation and its value in `source`, by default the fallback of all."""
    from smalti.configs.resolve import choices, fields, preset_names, resolve

    config: Any = resolve(source)
    of = f" of {source}" if source else ""
    lines = [
        USAGE.format(presets=", ".join(preset_names())),
        f"options (default{of or ' where the preset is silent'}):",
    ]
    for name, text, _ in fields():
        if name in ("preset", "init_from", "data.path"):
            continue  # PRESET, --init-from and --data, above
        value: object = reduce(getattr, name.split("."), config)
        words = choices(name)
        lines.append(f"  --{name} (default {value!r})" if value != "" else f"  --{name}")
        told = f"{text} Possible: {', '.join(words)}." if words else text
        lines.append(textwrap.fill(" ".join(told.split()), 110, initial_indent=" " * 8, subsequent_indent=" " * 8))
    lines += _layer_help(config)
    return "\n".join(lines)


def _layer_help(config: Any) -> list[str]:
    """The fields of layers, with their values in each layer of `config`."""
    from smalti.configs.layers import layer_fields
    from smalti.configs.resolve import choices

    lines = ["layers (in a file: scene, a list; here --scene.NAME.FIELD VALUE, with one layer --FIELD VALUE):"]
    for name, (text, _) in layer_fields().items():
        values = ", ".join(f"{layer.name}: {getattr(layer, name)!r}" for layer in config.scene)
        lines.append(f"  --scene.NAME.{name} ({values})" if values else f"  --scene.NAME.{name}")
        words = [word for word in choices(f"scene.NAME.{name}") if word]
        told = f"{text} Possible: {', '.join(words)}." if words else text
        lines.append(textwrap.fill(" ".join(told.split()), 110, initial_indent=" " * 8, subsequent_indent=" " * 8))
    return lines


def drawn_by(trainer: Trainer) -> str:
    """Which backend draws, as a person would say it."""
    name = trainer.device.type if trainer.backend == "auto" else trainer.backend
    if name != "cpu":
        return f"drawn by {name}"
    from smalti.renderers.engine import get_threads, library

    return f"drawn by the CPU engine ({library.chosen()}, {get_threads()} threads)"
