"""A coordinator that kills itself: `python -m tests.e2e.mortal_coordinator WHAT:NUMBER OVERRIDES...`.

The real program, and a real SIGKILL: before the NUMBER-th write to the set WHAT of the view; or, where WHAT is `spool`,
when NUMBER updates lie in its spool and nothing else has been done with the last.
"""

import os
import runpy
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from geotrain.updates.chunks import Spool
from geotrain.view.connect import View


def main() -> None:
    deadly, number = sys.argv.pop(1).split(":")
    steps = count(1)
    put, finish = View.put, Spool.finish

    def step(what: str) -> None:
        if what == deadly and next(steps) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal_put(view: View, set_name: str, *arguments: Any, **options: Any) -> None:
        step(set_name)
        put(view, set_name, *arguments, **options)

    def mortal_finish(spool: Spool) -> Path:
        path = finish(spool)
        step("spool")
        return path

    View.put, Spool.finish = mortal_put, mortal_finish  # type: ignore[method-assign]
    runpy.run_module("coordinator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
