"""Parameters come out the same from every container; all else is refused with the reason, and never run."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from shared.embeddings import checkpoints
from shared.errors import WeightsError


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        checkpoints.read(path)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"cls_token": torch.rand(1, 1, 4), "norm.weight": torch.rand(4), "norm.bias": torch.rand(4)}


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


CONTAINERS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": prefixed(s, "module.")},
    "model": lambda s: {"model": s},
    "average": lambda s: {"state_dict": {k: v + 1 for k, v in s.items()}, "state_dict_ema": s},
    "compiled": lambda s: {"model": prefixed(s, "_orig_mod.module.")},
    "dino": lambda s: {
        "student": prefixed({k: v + 1 for k, v in s.items()}, "module.backbone."),
        "teacher": prefixed(s, "module.backbone.") | {"module.head.mlp.0.weight": torch.ones(2, 2)},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
    },
}


@pytest.mark.parametrize("container", sorted(CONTAINERS))
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_container_gives_the_same_parameters(state, container, zipped, tmp_path):
    torch.save(CONTAINERS[container](state), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    read = checkpoints.read(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_safetensors_are_read(state, tmp_path):
    save_file(prefixed(state, "backbone."), tmp_path / "w.safetensors")
    read = checkpoints.read(tmp_path / "w.safetensors")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_hold_no_parameters_are_refused(state, name, tmp_path):
    file = tmp_path / name
    assert "There is no file of weights at" in refused(file)
    file.write_bytes(b"")
    assert "w." in refused(file)
    assert "empty" in refused(file)
    file.write_text("these are the weights of my network\n" * 50)
    assert "damaged" in refused(file)
    if name == "w.pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    data = file.read_bytes()
    for part in (20, len(data) // 2, len(data) - 3):
        file.write_bytes(data[:part])
        assert "truncated" in refused(file)


def test_other_contents_are_refused(tmp_path):
    file = tmp_path / "w.pth"
    for content in ([1, 2], {"epoch": 3}, {}, torch.ones(3)):
        torch.save(content, file)
        assert "holds no parameters" in refused(file)
    torch.save({"w": torch.ones(2, 2).to_sparse()}, file)
    assert "sparse" in refused(file)
    torch.jit.script(torch.nn.Linear(2, 2)).save(file)
    assert "TorchScript" in refused(file)
    torch.save({"model": torch.nn.Linear(2, 2)}, file)
    # Unless Ultralytics' loader has made it known to this process.
    assert "torch.nn.modules.linear.Linear" in (said := refused(file)) or "holds no parameters" in said


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_hostile_pickle_is_refused_and_not_run(state, zipped, tmp_path):
    file, mark = tmp_path / "w.pth", tmp_path / "executed"
    torch.save({"state_dict": {**state, "x": Hostile(mark)}}, file, _use_new_zipfile_serialization=zipped)
    assert "mkdir" in refused(file)
    file.write_bytes(pickle.dumps(Hostile(mark)))
    assert "could run code" in refused(file) or "damaged" in refused(file)
    assert not mark.exists()
    # It would have: the file is what it claims to be.
    pickle.loads(file.read_bytes())
    assert mark.exists()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0)


def test_what_does_not_fit_is_counted_and_named(tiny):
    state = dict(tiny.state_dict())
    _, misfit = checkpoints.fit(state, tiny)
    assert not misfit
    state["head.weight"] = state["head.mlp.0.bias"] = state["last_layer.weight_g"] = torch.ones(1)
    renamed, misfit = checkpoints.fit(state, tiny)
    assert not misfit
    assert renamed.keys() == tiny.state_dict().keys()
    del state["norm.weight"], state["cls_token"]
    state["blocks.40.norm1.weight"] = torch.ones(64)
    state["blocks.0.attn.qkv.weight"] = torch.ones(12, 7)
    _, misfit = checkpoints.fit(state, tiny)
    assert sorted(misfit.missing) == ["cls_token", "norm.weight"]
    assert misfit.unexpected == ("blocks.40.norm1.weight",)
    assert misfit.shapes == {"blocks.0.attn.qkv.weight": ((12, 7), (192, 64))}
    said = misfit.text("test_vit")
    assert "2 missing in the file (cls_token, norm.weight)" in said
    assert "1 that the network has not (blocks.40.norm1.weight)" in said
    assert "blocks.0.attn.qkv.weight is (12, 7) in the file, (192, 64) in test_vit" in said


def test_patches_of_another_size_are_another_network(tiny):
    state = dict(tiny.state_dict())
    state["patch_embed.proj.weight"] = torch.ones(64, 3, 8, 8)
    _, misfit = checkpoints.fit(state, tiny)
    assert misfit.shapes == {"patch_embed.proj.weight": ((64, 3, 8, 8), (64, 3, 16, 16))}


def test_the_digest_changes_with_each_number(tiny):
    before = checkpoints.digest(tiny)
    assert before == checkpoints.digest(tiny)
    with torch.no_grad():
        tiny.norm.bias[3] += 1e-3
    assert checkpoints.digest(tiny) != before
    assert checkpoints.digest(tiny, without="norm.") != checkpoints.digest(tiny)


def test_numbers_that_are_not_finite_are_refused(tiny):
    with torch.no_grad():
        tiny.norm.weight[0] = float("nan")
    with pytest.raises(WeightsError, match=r"not finite, in norm.weight"):
        checkpoints.digest(tiny)
