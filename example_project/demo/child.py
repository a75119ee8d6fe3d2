"""`python child.py PARENT COMMAND...`: becomes COMMAND, and ends with the process PARENT that started it.

On Linux the kernel sees to that, also when the parent is killed outright. (The alternative, a
`preexec_fn`, may deadlock in a parent that has threads, and the mail server is one.)
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):  # it ended before we asked
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 no shell is wanted


if __name__ == "__main__":
    main()
