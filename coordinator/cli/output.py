"""What a command prints: JSON for a program, or what a person reads."""

import json
import sys
from typing import Any

from rich.console import Console, RenderableType

# What is piped to a file or a program is not broken into lines.
PIPED_COLUMNS = 1000


def print_either(seen: Any, shown: RenderableType, as_json: bool, *, indent: int | None = 2) -> None:
    if as_json:
        print(json.dumps(seen, indent=indent), flush=True)
        return
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(shown, highlight=False)
