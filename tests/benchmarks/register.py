"""Importing all five plugins, beyond FiftyOne itself, in fresh processes."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = 5
# Everything that FiftyOne needs by itself is imported first, and its own plugins are registered once.
MEASURE = """
import time
import fiftyone, fiftyone.operators, fiftyone.server.routes
from fiftyone.plugins.context import PluginContext
from fiftyone.plugins import list_plugins
for definition in list_plugins(builtin=True):
    PluginContext(definition).register_all()
began = time.perf_counter()
contexts = [PluginContext(definition) for definition in list_plugins(builtin=False)]
for context in contexts:
    context.register_all()
spent = time.perf_counter() - began
assert len(contexts) == 5, contexts
assert not any(context.has_errors() for context in contexts), [context.errors for context in contexts]
print(spent)
"""


def run() -> dict:
    """Seconds in the median of five processes, after one that fills the caches of compiled code."""
    environment = os.environ | {"FIFTYONE_PLUGINS_DIR": str(ROOT / "plugins")}
    seconds = []
    for _ in range(1 + ROUNDS):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE], env=environment, cwd="/", stdout=subprocess.PIPE, text=True, check=True
        )
        seconds.append(float(done.stdout.split()[-1]))
    return {
        "name": "register",
        "ours": round(statistics.median(seconds[1:]), 4),
        "peer": None,
        "ratio": None,
        "unit": "seconds to register all five plugins",
        "goal": "<= 0.5",
        "rounds": seconds[1:],
    }
