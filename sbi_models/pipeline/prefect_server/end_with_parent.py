"""Run a module as a program that ends with its parent process.

`python -m sbi_models.pipeline.prefect_server.end_with_parent PARENT MODULE ARGUMENTS`

However the parent ends, by whatever signal and at whatever moment, this one sees that it has another parent,
and ends with all of its process group, which must be its own.
"""

import os
import runpy
import signal
import sys
import threading
import time

_LOOK_SECONDS, _END_SECONDS = 0.5, 10.0


def follow(parent: int) -> None:
    """End this process and its group soon after its parent has ended, by force if need be."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGTERM)
        time.sleep(_END_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    follow(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
