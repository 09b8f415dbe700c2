"""Launcher of a child that must not outlive us: arranges a SIGTERM for the parent's death, then becomes the program.

Run as a script, `die_with_parent.py PARENT_PID LOCK_FD PROGRAM ARGUMENT...`. It replaces subprocess's `preexec_fn`,
which may deadlock in a process with threads. The process id, the same before and after, is written into the lock
file, so that whoever finds the lock held knows by whom. Outside Linux the arrangement is missing: there a clean exit
stops the child, and a killed parent leaves it to the next start, which finds it by that file.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Become the program in `arguments`; exits with 1 if the parent is gone already."""
    parent, lock_fd, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != parent:  # it died before the arrangement was made
        sys.exit(1)
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, str(os.getpid()).encode(), 0)
    os.execv(command[0], command)  # noqa: S606  no shell is wanted here


if __name__ == "__main__":
    main(sys.argv[1:])
