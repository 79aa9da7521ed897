"""Runs MiniStack until standard input ends: it ends with the process that started it, however that ends."""

import os
import signal
import sys
import threading

from ministack.app import main


def follow() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    # It leads a group of its own, in which the functions it runs are too.
    os.killpg(0, signal.SIGKILL)


threading.Thread(target=follow, daemon=True).start()
sys.exit(main())
