"""OpenVINO without its telemetry, which would tell its makers of every import and every conversion of a model."""

import importlib
import sys
from types import ModuleType
from typing import Any

_TELEMETRY = "openvino_telemetry"
_ABSENT: Any = object()


def load() -> ModuleType:
    """The module `openvino`; its converter takes the stub that it has for where its telemetry is not installed.

    Where other code of this process has imported OpenVINO's converter before, that stays as it is.
    """
    before = sys.modules.get(_TELEMETRY, _ABSENT)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # importing it raises ImportError from here on
    try:
        importlib.import_module("openvino.tools.ovc")
    finally:
        if before is _ABSENT:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before
    return importlib.import_module("openvino")
