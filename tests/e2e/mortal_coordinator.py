"""A coordinator that kills itself: `python -m tests.e2e.mortal_coordinator WHAT PATTERN NUMBER OVERRIDES...`.

The real program, and a real SIGKILL: before the NUMBER-th write to the set WHAT of the view whose key and bins match
PATTERN; after it, where WHAT is that set and `+`; or, where WHAT is `spool`, when NUMBER updates lie in its spool and
nothing else was done with the last.
"""

import os
import re
import runpy
import signal
import sys
from itertools import count
from typing import Any

from geotrain.updates.chunks import Spool
from geotrain.view.connect import View


def main() -> None:
    deadly, pattern, number = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
    numbers = count(1)
    put, finish = View.put, Spool.finish

    def step(what: str, *about: Any) -> None:
        if what == deadly and re.search(pattern, str(about)) and next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal_put(view: View, set_name: str, key: str, bins: dict[str, Any], **options: Any) -> None:
        step(set_name, key, bins)
        put(view, set_name, key, bins, **options)
        step(f"{set_name}+", key, bins)

    def mortal_finish(spool: Spool) -> Any:
        finished = finish(spool)
        step("spool")
        return finished

    View.put, Spool.finish = mortal_put, mortal_finish  # type: ignore[method-assign]
    runpy.run_module("coordinator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
