"""Many readers or one writer, and nobody starves."""

from __future__ import annotations

import threading
import time

import pytest

from smalti.scene import demo_scene
from smalti.viewer.stage import Stage, Turns


def test_readers_share_and_a_writer_is_alone() -> None:
    turns, inside, most, broken = Turns(), [0, 0], [0], []
    lock = threading.Lock()
    stop = time.monotonic() + 0.6

    def work(writes: bool) -> None:
        while time.monotonic() < stop:
            with turns.writing() if writes else turns.reading():
                with lock:
                    inside[writes] += 1
                    if inside[1] > 1 or (inside[1] and inside[0]):
                        broken.append(tuple(inside))
                    most[0] = max(most[0], inside[0])
                time.sleep(0.002)
                with lock:
                    inside[writes] -= 1
            time.sleep(0.003)

    threads = [threading.Thread(target=work, args=(k < 2,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not broken
    assert most[0] > 1


def test_a_reader_gets_in_beside_a_writer_that_never_rests() -> None:
    turns, stop = Turns(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            with turns.writing():
                time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    waits = []
    for _ in range(20):
        start = time.monotonic()
        with turns.reading():
            waits.append(time.monotonic() - start)
    stop.set()
    writer.join()
    assert max(waits) < 0.5


def test_readers_that_never_end_do_not_keep_a_writer_out() -> None:
    """As clients that ask for /state without end, beside a training."""
    turns, stop, steps = Turns(), time.monotonic() + 1.0, [0]

    def read() -> None:
        while time.monotonic() < stop:
            with turns.reading():
                time.sleep(0.003)

    def train() -> None:
        while time.monotonic() < stop:
            with turns.writing(last=True):
                steps[0] += 1

    threads = [threading.Thread(target=read) for _ in range(4)] + [threading.Thread(target=train)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert steps[0] > 20


def test_a_reader_may_read_again_while_a_writer_waits() -> None:
    turns, done = Turns(), threading.Event()

    def write() -> None:
        with turns.writing():
            done.set()

    writer = threading.Thread(target=write, daemon=True)

    def read() -> None:
        with turns.reading():
            writer.start()
            while not turns._writers_waiting:
                time.sleep(0.001)
            with turns.reading():
                assert not done.is_set()
            assert not done.is_set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert not reader.is_alive(), "it waits for a writer that waits for it"
    assert done.wait(5)


def test_a_writer_may_read_and_write_again() -> None:
    turns = Turns()
    with turns.writing(), turns.writing(), turns.reading():
        pass
    done = threading.Event()

    def write() -> None:
        with turns.writing():
            done.set()

    threading.Thread(target=write).start()
    assert done.wait(5), "the inner blocks ended the outer one's turn twice, or never"


def test_a_failed_change_is_a_revision_and_frees_the_stage() -> None:
    stage = Stage(demo_scene())
    with pytest.raises(ZeroDivisionError), stage.changing():
        _ = 1 / 0
    assert stage.revision == 1
    with stage.reading() as scene:
        assert len(scene) == 20
