"""Processes that end with the one that started them."""

import asyncio
import os
import subprocess
import sys
import threading

from service.lifeline import hold, lifeline

# Inherits a lifeline, hangs its loop for ever, and would never end by itself.
_HANGS = """
import asyncio, sys, time
from service.lifeline import hold
async def main():
    hold(int(sys.argv[1]), asyncio.get_running_loop(), lambda: None, 0.1)
    print("holds", flush=True)
    time.sleep(600)
asyncio.run(main())
"""


def test_the_loop_hears_that_the_other_end_has_closed() -> None:
    async def held() -> int:
        heard = asyncio.Event()
        exits: list[int] = []
        exited = threading.Event()

        def exit_now(code: int) -> None:
            exits.append(code)
            exited.set()

        theirs, ours = os.pipe()
        silenced = os.dup(2)
        try:
            hold(theirs, asyncio.get_running_loop(), heard.set, 0.05, exit_now)
            await asyncio.sleep(0.05)
            assert not heard.is_set()
            os.close(ours)
            await asyncio.wait_for(heard.wait(), 10)
            assert await asyncio.to_thread(exited.wait, 10)
        finally:
            os.dup2(silenced, 2)
            os.close(silenced)
            os.close(theirs)
        return exits[0]

    assert asyncio.run(held()) == 1


def test_a_process_whose_loop_hangs_ends_too() -> None:
    with lifeline() as descriptor:
        process = subprocess.Popen(
            [sys.executable, "-c", _HANGS, str(descriptor)],
            pass_fds=(descriptor,),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
    process.stdout.close()

    assert process.wait(30) == 1
