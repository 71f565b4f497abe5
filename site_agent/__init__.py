"""The site agent: one region's daemon. Reads the view, joins it with local datasets, trains, reports updates."""

import os

# Read when ray is imported: a thread that still works while the agent stops must not start another Ray.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
