"""Registers this plugin's operators; what they do is in `operators.py` and `shared/`."""

import hashlib
import logging
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def register(plugin):
    """Called by FiftyOne whenever it looks for plugins: at its start and for every list of operators."""
    if not (FOLDER / "shared" / "__init__.py").is_file():
        message = f"{plugin.name} has no shared/ code in {FOLDER}: install the zip that `make zips` builds instead"
        logging.getLogger(__name__).error(message)
        raise ImportError(message)

    # After a new zip was uploaded FiftyOne runs this file again but keeps the old submodules. They go when the
    # code has changed, and only then: an operator that is running now still imports from its own.
    code = _digest()
    if getattr(sys.modules.get(f"{__name__}.operators"), "CODE", None) != code:
        for name in [name for name in sys.modules if name.startswith(f"{__name__}.")]:
            del sys.modules[name]

    try:
        from . import operators
    except Exception:
        # FiftyOne keeps the reason to itself.
        logging.getLogger(__name__).exception("%s cannot be loaded", plugin.name)
        raise
    operators.CODE = code
    for operator in operators.OPERATORS:
        plugin.register(operator)


def _digest():
    """SHA-256 of all the plugin's code, `shared/` included (a link in a checkout, a folder in a zip)."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(FOLDER, followlinks=True):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                digest.update(name.encode() + Path(folder, name).read_bytes())
    return digest.hexdigest()
