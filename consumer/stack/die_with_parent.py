"""Run a program that the kernel kills when its parent dies, however the parent dies (Linux only).

    python die_with_parent.py PARENT_PID PROGRAM ARGUMENT…

The parent-death signal survives exec, so the pid stays the same. It follows the *thread* that forked: see
`part.py`, which forks all parts from one thread that lives as long as the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # the parent died before the kernel was told
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
