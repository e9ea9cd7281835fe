"""A process for each cell: what crashes or hangs in it is an outcome like any other."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from benchmarks.zoo._outcome import Outcome
from edgekit.profiling.rss import peak_rss_mb

Work = Callable[..., Outcome]

# TensorFlow takes three seconds to import, longer than most cells take for the rest: one process
# imports it, computes nothing, and is forked for each cell.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it would write into our output
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tensorflow", "keras", "ai_edge_litert.interpreter", "tf2onnx"])


def in_child(
    work: Callable[..., Outcome], arguments: tuple[object, ...], limit_s: float
) -> Outcome:
    """Return what `work`, a function of a module, gives in a process of its own.

    Args:
        work: called with `arguments`; its outcome gets what the process took.
        arguments: that can be pickled.
        limit_s: after which the process is killed.
    """
    begun = time.perf_counter()
    receiver, sender = _SERVER.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile(prefix="edgekit-zoo-", suffix=".log") as log:
        child = _SERVER.Process(target=_work, args=(work, arguments, sender, log.name))
        child.start()
        sender.close()
        outcome = _received(receiver, limit_s)
        if outcome is None and child.is_alive() and time.perf_counter() - begun >= limit_s:
            child.kill()
            child.join()
            return Outcome(completed=False, reason=f"not done after {limit_s:g} s", seconds=limit_s)
        child.join()
        if outcome is None:
            outcome = Outcome(completed=False, reason=_how_it_ended(child.exitcode, Path(log.name)))
    return msgspec.structs.replace(outcome, seconds=time.perf_counter() - begun)


def _received(receiver: Connection, limit_s: float) -> Outcome | None:
    if not receiver.poll(limit_s):
        return None
    try:
        return msgspec.json.decode(receiver.recv_bytes(), type=Outcome)
    except EOFError:  # it ended before it said anything
        return None


def _work(work: Work, arguments: tuple[object, ...], sender: Connection, log: str) -> None:
    """Do the work in the child, and send what came of it."""
    told = os.open(log, os.O_WRONLY | os.O_APPEND)  # converters say much
    os.dup2(told, 1)
    os.dup2(told, 2)
    outcome = work(*arguments)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = time.process_time() + children.ru_utime + children.ru_stime
    outcome = msgspec.structs.replace(outcome, cpu_seconds=cpu_seconds, peak_rss_mb=peak_rss_mb())
    sender.send_bytes(msgspec.json.encode(outcome))


def _how_it_ended(exit_code: int | None, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = lines[-1] if lines else "it said nothing"
    ended = f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else "an exception"
    return f"the process ended ({ended}): {told}"
