"""A coordinator that kills itself: `python -m tests.e2e.mortal_coordinator SET:NUMBER OVERRIDES...`.

The real program, and a real SIGKILL, before the NUMBER-th write to that set of the view.
"""

import os
import runpy
import signal
import sys
from typing import Any

from geotrain.view.connect import View


def main() -> None:
    deadly_set, number = sys.argv.pop(1).split(":")
    left = int(number)
    put = View.put

    def mortal_put(view: View, set_name: str, *arguments: Any, **options: Any) -> None:
        nonlocal left
        left -= set_name == deadly_set
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        put(view, set_name, *arguments, **options)

    View.put = mortal_put  # type: ignore[method-assign]
    runpy.run_module("coordinator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
