"""Real ranks for tests: processes that join each other over gloo on this machine, forked from one that has torch in memory."""

import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from moeprof.parallel.group import Group, joined

TIMEOUT_S = 30.0

context = get_context("forkserver")
context.set_forkserver_preload(["torch", "torch.distributed", "moeprof.studies.study", "moeprof.studies.optimize"])


def over_ranks(size: int, work: Callable[..., Any], *arguments: Any, timeout_s: float = TIMEOUT_S) -> list[Any]:
    """What `work(group, *arguments)` gives on every rank; AssertionError with the tracebacks of those that fail."""
    answers = answers_of(size, work, *arguments, timeout_s=timeout_s)
    if failures := [failure for _, failure in answers if failure]:
        raise AssertionError("\n".join(failures))
    return [found for found, _ in answers]


def answers_of(size: int, work: Callable[..., Any], *arguments: Any, timeout_s: float = TIMEOUT_S) -> list[tuple[Any, str]]:
    """The same, or why a rank has none."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=run, args=(Group(rank, size), store.port, timeout_s, pipes[rank][1], work, arguments))
        for rank in range(size)
    ]
    try:
        for process, (_, ours) in zip(processes, pipes, strict=True):
            process.start()
            ours.close()
        return [answer(theirs, 2 * timeout_s) for theirs, _ in pipes]
    finally:
        for process in processes:
            process.join(1)
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGKILL)
            process.join()


def answer(pipe: Connection, timeout_s: float) -> tuple[Any, str]:
    """What a rank found, or its traceback."""
    try:
        found: tuple[Any, str] = pipe.recv() if pipe.poll(timeout_s) else (None, "a rank did not answer")
    except EOFError:
        return None, "a rank died"
    return found


def run(group: Group, port: int, timeout_s: float, pipe: Connection, work: Callable[..., Any], arguments: Any) -> None:
    """One rank."""
    os.environ |= {"RANK": str(group.rank), "WORLD_SIZE": str(group.size), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    torch.set_num_threads(1)
    try:
        with joined(group, "cpu", timeout_s), torch.inference_mode():
            pipe.send((work(group, *arguments), ""))
    except BaseException:
        pipe.send((None, f"rank {group.rank}: {traceback.format_exc()}"))
