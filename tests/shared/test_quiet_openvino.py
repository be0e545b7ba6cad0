"""OpenVINO converts models and tells nobody."""

import subprocess
import sys

LOOK = """
import sys
sys.path.insert(0, {root!r})
from shared import quiet_openvino
openvino = quiet_openvino.load()
import torch
openvino.convert_model(torch.nn.Linear(2, 2).eval(), example_input=torch.zeros(1, 2))
from openvino.tools.ovc import convert_impl
print(convert_impl.tm.__name__, "openvino_telemetry.main" in sys.modules)
"""


def test_a_model_is_converted_without_telemetry(request):
    program = LOOK.format(root=str(request.config.rootpath))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["openvino.tools.ovc.telemetry_stub False"], done.stderr


def test_what_was_imported_before_stays_as_it_was(monkeypatch):
    from types import ModuleType

    from shared import quiet_openvino

    theirs = ModuleType("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", theirs)
    quiet_openvino.load()
    assert sys.modules["openvino_telemetry"] is theirs
