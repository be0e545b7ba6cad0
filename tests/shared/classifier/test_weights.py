"""Weights of every family load, say how to be used, and never run code; all others are refused with the reason."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.classifier import weights
from shared.errors import InputError, StorageError, WeightsError

from ..conftest import CLASSES


def refused(path: Path, **how: object) -> str:
    with pytest.raises(WeightsError) as caught:
        weights.load(path, **how)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


# Ultralytics checkpoints


@pytest.mark.parametrize(
    "architecture", ["yolov8n-cls.yaml", "yolo11n-cls.yaml", "yolo26n-cls.yaml", "yolov8s-cls.yaml"]
)
def test_every_architecture_loads_and_gives_logits(architecture, save_checkpoint, tmp_path):
    from ultralytics import YOLO

    path = save_checkpoint(tmp_path / "net.pt", architecture)
    classifier = weights.load(path)
    assert classifier.names == CLASSES
    assert (classifier.framing, classifier.imgsz, classifier.family) == ("crop", 224, "ultralytics")
    assert classifier.sha256 == weights.sha256(path)
    assert {p.dtype for p in classifier.module.parameters()} == {torch.float32}
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in classifier.module.modules())
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = classifier.module(images)
        reference = YOLO(path).model.float().eval()(images)[1]
    assert logits.min() < 0
    torch.testing.assert_close(logits.softmax(1), reference.softmax(1), atol=1e-4, rtol=0)


def test_framing_and_size_count_for_weights_that_do_not_say(checkpoint):
    classifier = weights.load(checkpoint, framing="pad", imgsz=96)
    assert (classifier.framing, classifier.imgsz) == ("pad", 96)
    with pytest.raises(InputError, match="framing 'squash'"):
        weights.load(checkpoint, framing="squash")
    with pytest.raises(InputError, match="size is 7"):
        weights.load(checkpoint, imgsz=7)


@pytest.fixture
def version(checkpoint, tmp_path):
    shutil.copyfile(checkpoint, tmp_path / "weights.pt")
    names = [f"class {i}" for i in range(len(CLASSES))]
    (tmp_path / "model.json").write_text(json.dumps({"classes": names, "framing": "pad", "imgsz": 64}))
    return tmp_path


def test_a_version_says_its_own_names_framing_and_size(version):
    classifier = weights.load(version, framing="crop", imgsz=224)
    assert classifier.names == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert (classifier.framing, classifier.imgsz) == ("pad", 64)
    assert weights.load_names(version) == classifier.names


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ["a", "b"]}, "names 2 classes, but its network tells 5"),
        ({"classes": [1, 2, 3, 4, 5]}, "does not say"),
        ({"framing": "fisheye"}, "does not say"),
        ({"imgsz": "224"}, "does not say"),
    ],
)
def test_a_version_whose_description_does_not_fit_is_refused(version, change, reason):
    said = json.loads((version / "model.json").read_text())
    (version / "model.json").write_text(json.dumps({**said, **change}))
    assert reason in refused(version)


def test_a_damaged_version_is_refused(version):
    (version / "model.json").write_text('{"classes": [')
    assert "model.json" in refused(version)
    (version / "model.json").write_text("[]")
    assert "model.json" in refused(version)


def test_the_normalisation_that_a_checkpoint_carries_is_used(checkpoint, tmp_path):
    from ultralytics.data.augment import classify_transforms

    content = torch.load(checkpoint, weights_only=False)
    content["model"].transforms = classify_transforms(224, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    torch.save(content, tmp_path / "net.pt")
    classifier = weights.load(tmp_path / "net.pt")
    np.testing.assert_allclose(classifier.mean, (0.5, 0.4, 0.3), rtol=1e-6)
    np.testing.assert_allclose(classifier.std, (0.2, 0.2, 0.1), rtol=1e-6)


# What cannot be used


def test_missing_weights_are_named(tmp_path):
    assert "There are no weights at" in refused(tmp_path / "none.pt")
    assert "model.json" in refused(tmp_path)


def test_files_that_are_no_checkpoint_are_refused(checkpoint, tmp_path):
    file = tmp_path / "net.pt"
    file.write_bytes(b"")
    assert "empty" in refused(file)
    file.write_text("these are the weights of my network\n" * 50)
    assert "not a checkpoint" in refused(file)
    data = checkpoint.read_bytes()
    for part in (100, len(data) // 2, len(data) - 100):
        file.write_bytes(data[:part])
        assert "truncated" in refused(file)
    assert "must end in .pt" in refused(Path(__file__))


def test_a_damaged_parameter_is_found(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=False)
    content["model"].model[-1].linear.bias.data[0] = float("nan")
    torch.save(content, tmp_path / "net.pt")
    assert "not numbers" in refused(tmp_path / "net.pt")


def test_other_kinds_of_model_are_refused(checkpoint, tmp_path):
    from ultralytics.nn.tasks import DetectionModel

    file = tmp_path / "net.pt"
    torch.save({"model": DetectionModel("yolov8n.yaml", verbose=False), "ema": None}, file)
    assert "not a classifier but a DetectionModel" in refused(file)
    content = torch.load(checkpoint, weights_only=False)
    torch.save({"model": content["model"].state_dict()}, file)
    assert "bare parameters" in refused(file)
    torch.save(content["model"].state_dict(), file)
    assert "not a classifier" in refused(file)
    torch.save([1, 2], file)
    assert "could not be loaded" in refused(file) or "not an Ultralytics checkpoint" in refused(file)
    torch.jit.script(torch.nn.Linear(2, 2)).save(file)
    assert "TorchScript" in refused(file)


def test_a_class_count_that_does_not_fit_its_names_is_refused(save_checkpoint, tmp_path):
    path = save_checkpoint(tmp_path / "net.pt", outputs=7)
    assert "names 5 classes, but its network tells 7" in refused(path)


class Hostile:
    """Creates a file when it is unpickled by whoever runs what it says."""

    def __init__(self, how: str, mark: Path) -> None:
        self.how, self.mark = how, mark

    def __reduce__(self):
        if self.how == "os.system":
            return os.system, (f"touch '{self.mark}'",)
        if self.how == "eval":
            return eval, (f"open({str(self.mark)!r}, 'w')",)
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["os.system", "eval", "method"])
@pytest.mark.parametrize("form", ["plain", "zip", "legacy", "hidden"])
def test_no_code_from_a_checkpoint_runs(how, form, checkpoint, tmp_path):
    mark, file = tmp_path / "mark", tmp_path / "net.pt"
    payload = Hostile(how, mark)
    if form == "plain":
        file.write_bytes(pickle.dumps(payload))
    elif form == "zip":
        torch.save({"model": payload}, file)
    elif form == "legacy":
        torch.save({"model": payload}, file, _use_new_zipfile_serialization=False)
    else:
        content = torch.load(checkpoint, weights_only=False)
        content["model"].extra = payload
        torch.save(content, file)
    said = refused(file)
    assert not mark.exists()
    if form != "plain":
        assert "could run code" in said
    # The payload is a real one: loaded carelessly, it does create the file.
    if form == "plain":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert mark.exists()


# Hugging Face folders


def test_a_hugging_face_folder_says_all_by_itself(vit_folder):
    classifier = weights.load(vit_folder)
    assert classifier.names == CLASSES
    assert (classifier.framing, classifier.imgsz, classifier.family) == ("stretch", 48, "huggingface")
    np.testing.assert_allclose(classifier.mean, (0.2, 0.25, 0.3), rtol=1e-6)
    np.testing.assert_allclose(classifier.std, (0.3, 0.25, 0.2), rtol=1e-6)
    assert classifier.sha256 == weights.sha256(vit_folder / "model.safetensors")


@pytest.fixture
def folder(vit_folder, tmp_path):
    return Path(shutil.copytree(vit_folder, tmp_path / "vit"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("said", "framing", "imgsz"),
    [
        ({"size": {"shortest_edge": 48}, "do_center_crop": True, "crop_size": {"height": 48, "width": 48}}, "crop", 48),
        ({"size": {"height": 48, "width": 48}, "do_center_crop": False, "do_rescale": False}, "stretch", 48),
    ],
)
def test_what_other_processors_do_is_understood(folder, said, framing, imgsz):
    change(folder / "preprocessor_config.json", image_processor_type="CLIPImageProcessor", **said)
    classifier = weights.load(folder)
    assert (classifier.framing, classifier.imgsz) == (framing, imgsz)
    scale = 255 if said.get("do_rescale") is False else 1
    np.testing.assert_allclose(np.multiply(classifier.mean, scale), (0.2, 0.25, 0.3), rtol=1e-6)


def test_a_processor_that_crops_inside_needs_a_choice(folder):
    change(
        folder / "preprocessor_config.json",
        image_processor_type="CLIPImageProcessor",
        size={"shortest_edge": 64},
        do_center_crop=True,
        crop_size={"height": 48, "width": 48},
    )
    assert "choose a framing" in refused(folder)
    classifier = weights.load(folder, framing="pad")
    assert (classifier.framing, classifier.imgsz) == ("pad", 48)


@pytest.mark.parametrize("piece", ["model.safetensors", "preprocessor_config.json", "config.json"])
def test_a_missing_piece_is_named(folder, piece):
    (folder / piece).unlink()
    assert piece in refused(folder)


def test_damaged_pieces_are_refused(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "weights" in refused(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert "empty" in refused(folder)
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text("{")
    assert "config.json" in refused(folder)


def test_a_folder_of_another_kind_is_refused(folder):
    change(folder / "config.json", architectures=["ViTModel"])
    assert "ViTModel" in refused(folder)
    change(folder / "config.json", architectures=None)
    assert "not an image classifier" in refused(folder)


def test_a_folder_without_its_head_is_refused(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("classifier")}, folder / "model.safetensors")
    assert "classifier" in refused(folder)


def test_a_folder_whose_classes_do_not_fit_is_refused(folder):
    change(folder / "config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    refused(folder)


def test_a_folder_that_brings_code_is_refused_and_the_code_not_run(folder, tmp_path):
    mark = tmp_path / "mark"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    auto = {"AutoConfig": "evil.Evil", "AutoModelForImageClassification": "evil.Evil"}
    change(folder / "config.json", auto_map=auto, model_type="evil")
    assert "needs code of its own" in refused(folder)
    assert not mark.exists()


def test_pickled_hugging_face_weights_load_without_code(folder, tmp_path):
    from safetensors.torch import load_file

    mark, file = tmp_path / "mark", folder / "pytorch_model.bin"
    reference = weights.load(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, file)
    images = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(weights.load(folder).module(images), reference.module(images))
    torch.save({**tensors, "vit.evil": Hostile("os.system", mark)}, file)
    assert "not safe to load" in refused(folder)
    assert not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists()


# Where weights come from


def resolve(name: str, dest: Path, *trusted: str) -> Path:
    return weights.resolve_base(name, dest, {}, trusted)


def test_files_folders_and_networks_from_scratch_are_taken(checkpoint, vit_folder, tmp_path):
    assert resolve(str(checkpoint), tmp_path) == checkpoint
    assert resolve(str(vit_folder), tmp_path) == vit_folder
    for name in ("yolov8n-cls.yaml", "yolo11s-cls.yaml", "yolo26x-cls.yaml"):
        assert resolve(name, tmp_path) == Path(name)


@pytest.mark.parametrize(
    "name", ["", "yolov8n.pt", "yolov8q-cls.pt", "yolov8n.yaml", "evil.yaml", "http://host/net.pt", "file:///net.pt"]
)
def test_names_that_are_no_weights_are_explained(name, tmp_path):
    with pytest.raises(InputError, match=r"yolov8n-cls|cannot be read from"):
        resolve(name, tmp_path)


def test_a_yaml_file_of_ones_own_is_not_evaluated(tmp_path):
    (tmp_path / "own-cls.yaml").write_text("nc: 2\n")
    with pytest.raises(InputError, match="from scratch"):
        resolve(str(tmp_path / "own-cls.yaml"), tmp_path)


def test_a_hub_name_is_taken_from_where_it_was_downloaded_before(checkpoint, tmp_path, monkeypatch):
    from ultralytics.utils import SETTINGS

    dest, cache = tmp_path / "dest", tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setitem(SETTINGS, "weights_dir", str(cache))
    shutil.copyfile(checkpoint, cache / "yolo26n-cls.pt")
    assert resolve("yolo26n-cls.pt", dest, "s3://lab/only") == cache / "yolo26n-cls.pt"
    dest.mkdir()
    shutil.copyfile(checkpoint, dest / "yolo26n-cls.pt")
    assert resolve("yolo26n-cls.pt", dest) == dest / "yolo26n-cls.pt"


def test_without_a_way_out_hub_names_say_what_to_do_instead(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("yolov8m-cls.pt", "hf://owner/model"):
        with pytest.raises(
            StorageError, match=r"could not be downloaded.*file, an s3:// URI or a model of the registry"
        ):
            resolve(name, tmp_path / "dest")
        assert not list((tmp_path / "dest").rglob("*.pt"))


def test_only_what_lies_under_a_trusted_prefix_is_taken(checkpoint, tmp_path, monkeypatch):
    good, evil = tmp_path / "ok", tmp_path / "ok-not"
    for folder in (good, evil):
        folder.mkdir()
        shutil.copyfile(checkpoint, folder / "net.pt")
    (good / "link.pt").symlink_to(evil / "net.pt")
    monkeypatch.chdir(evil)
    shutil.copyfile(checkpoint, evil / "yolov8n-cls.pt")
    trusted = weights.trusted_prefixes({"MBARI_TRUSTED_WEIGHTS": f" s3://lab/models/ , {good},"})
    assert trusted == ("s3://lab/models/", str(good))
    assert resolve(str(good / "net.pt"), tmp_path, *trusted) == good / "net.pt"
    # The last is a file here which only looks like one of the hub.
    for name in (evil / "net.pt", good / ".." / "ok-not" / "net.pt", good / "link.pt", "net.pt", "yolov8n-cls.pt"):
        with pytest.raises(WeightsError, match="not under one of the trusted places"):
            resolve(str(name), tmp_path, *trusted)
    assert resolve("net.pt", tmp_path) == Path("net.pt")


@pytest.mark.parametrize(
    ("uri", "is_trusted"),
    [
        ("s3://lab/models/net.pt", True),
        ("s3://lab/models/ptvr/weights/", True),
        ("hf://mbari/vit", True),
        ("s3://lab/models-of-others/net.pt", False),
        ("s3://lab/models/../evil/net.pt", False),
        ("s3://lab/models/./../evil/net.pt", False),
        ("s3://lab/models//net.pt", False),
        ("s3://lab/evil.pt", False),
        ("s3://laboratory/models/net.pt", False),
        ("hf://mbari-not/vit", False),
        ("hf://lab/models/net.pt", False),
        ("/lab/models/net.pt", False),
    ],
)
def test_uris_are_compared_segment_by_segment(uri, is_trusted, tmp_path):
    trusted = ("s3://lab/models", "hf://mbari/")
    from shared.classifier import bases

    assert bases.is_trusted(uri, trusted) == is_trusted
    if not is_trusted:
        with pytest.raises(WeightsError, match="not under one of the trusted places"):
            resolve(uri, tmp_path, *trusted)
