"""Every runtime gives the same classes as the libraries that the weights come from."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import runtimes
from shared.classifier import weights
from shared.classifier.predict import softmax
from shared.errors import InputError
from shared.framing import frame
from shared.images import decode
from shared.media import map_threads

RUNTIMES = ["torch", "openvino"]
needs_bfloat16 = pytest.mark.skipif(not runtimes._cpu_has_bfloat16(), reason="the processor has no bfloat16")


def framed(paths, size, framing):
    def read(path):
        with Path(path).open("rb") as file:
            return frame(decode(file.read()), size, framing)

    return np.stack(list(map_threads(read, paths, 2, 8)))


@pytest.fixture(scope="module")
def classifier(checkpoint):
    return weights.load(checkpoint, imgsz=96)


@pytest.fixture(scope="module")
def images(rois):
    return framed(rois, 96, "crop")


def ultralytics_probabilities(path, images, imgsz):
    from ultralytics import YOLO

    results = YOLO(path).predict(images, imgsz=imgsz, batch=16, verbose=False, device="cpu", save=False)
    return np.stack([result.probs.data.numpy() for result in results])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_full_precision_equals_ultralytics(runtime, checkpoint, classifier, images, rois):
    ours = softmax(runtimes.build(classifier, runtime=runtime, precision="full", device="cpu")(images))
    theirs = ultralytics_probabilities(checkpoint, rois, 96)
    assert len(set(theirs.argmax(1))) > 1, "the network tells nothing apart, so this shows nothing"
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_full_precision_equals_ultralytics_on_real_rois(runtime, pwssc, leaf_weights):
    paths = sorted(map(str, pwssc.glob("*/*.png")))[::16]
    built = runtimes.build(weights.load(leaf_weights), runtime=runtime, precision="full", device="cpu")
    ours = softmax(built(framed(paths, 224, "crop")))
    np.testing.assert_allclose(ours, ultralytics_probabilities(leaf_weights, paths, 224), atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_full_precision_equals_transformers(runtime, vit_folder, rois):
    from PIL import Image
    from transformers import pipeline

    classifier = weights.load(vit_folder)
    theirs = pipeline("image-classification", model=str(vit_folder), function_to_apply="none", top_k=None, device="cpu")
    # At the network's own size, so that resizing (another filter's rounding) plays no part.
    images = framed(rois, classifier.imgsz, "stretch")
    answers = theirs([Image.fromarray(image) for image in images])
    expected = [[{a["label"]: a["score"] for a in answer}[name] for name in classifier.names] for answer in answers]
    ours = runtimes.build(classifier, runtime=runtime, precision="full", device="cpu")(images)
    assert np.ptp(ours, axis=0).min() > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    # From the files: at most two grey levels come from resizing.
    answers = theirs([Image.open(path) for path in rois])
    expected = [[{a["label"]: a["score"] for a in answer}[name] for name in classifier.names] for answer in answers]
    assert np.abs(ours - expected).mean() < 0.02 * np.std(expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_auto_precision_agrees_on_the_top_class(runtime, classifier, images):
    full = runtimes.build(classifier, runtime=runtime, precision="full", device="cpu")(images)
    auto = runtimes.build(classifier, runtime=runtime, device="cpu")(images)
    assert (full.argmax(1) == auto.argmax(1)).all()
    np.testing.assert_allclose(softmax(auto), softmax(full), atol=0.1)


def test_half_precision_agrees_on_the_top_class_of_real_rois(pwssc, leaf_weights):
    images = framed(sorted(map(str, pwssc.glob("*/*.png"))), 224, "crop")
    assert len(images) == 1144
    classifier = weights.load(leaf_weights)
    full = runtimes.build(classifier, precision="full", device="cpu")(images)
    auto = runtimes.build(classifier, device="cpu")
    agree = (full.argmax(1) == auto(images).argmax(1)).mean()
    print(f"{auto.description}: {agree:.2%} of top classes agree")
    assert agree >= 0.998


@needs_bfloat16
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_half_precision_is_used_and_close_calls_are_computed_in_full(runtime, classifier, images):
    auto = runtimes.build(classifier, runtime=runtime, device="cpu")
    assert auto.description == f"{runtime} bfloat16, close calls in float32"
    full = runtimes.build(classifier, runtime=runtime, precision="full", device="cpu")
    assert full.description == f"{runtime} float32"
    same = np.isclose(auto(images), full(images), rtol=1e-5, atol=1e-5).all(axis=1)
    assert not same.all(), "nothing was computed in half precision"
    close = runtimes.close_calls(auto.first(images), runtimes.CLOSE_UNITS / 128)
    assert 0 < close.sum() < len(images)
    assert same[close].all()


def test_close_calls_are_leads_within_rounding():
    logits = np.array([[0, 1, 9], [0, 8.99, 9], [9, 0, 8.9], [5, 5, 5], [np.nan, 0, 1]], np.float32)
    assert runtimes.close_calls(logits, 0.1).tolist() == [False, True, True, True, True]
    assert runtimes.close_calls(logits[:3], 0.001).tolist() == [False, False, False]
    assert runtimes.close_calls(np.zeros((2, 1), np.float32), 1).tolist() == [False, False]


@pytest.mark.parametrize("precision", ["auto", "full"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_results_do_not_depend_on_how_images_are_cut_into_batches(runtime, precision, classifier, images):
    built = runtimes.build(classifier, runtime=runtime, precision=precision, device="cpu")
    whole = built(images)
    order = np.random.default_rng(0).permutation(len(images))
    for size in (1, 7, 50):
        cut = np.concatenate([built(images[order[i : i + size]]) for i in range(0, len(images), size)])
        np.testing.assert_array_equal(cut, whole[order])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_number_of_images_and_any_batch_size_work(runtime, classifier, images):
    reference = runtimes.build(classifier, runtime=runtime, precision="full", device="cpu")(images[:9])
    for batch_size in (1, 3, 200):
        built = runtimes.build(classifier, runtime=runtime, precision="full", device="cpu", batch_size=batch_size)
        assert built.batch_size == batch_size
        np.testing.assert_allclose(built(images[:9]), reference, atol=1e-4)
        nothing = built(images[:0])
        assert nothing.shape == (0, 5)
        assert nothing.dtype == np.float32


@pytest.mark.parametrize(("seconds_an_image", "expected"), [(0.001, 64), (0.03, 32), (0.1, 8), (5.0, 8)])
def test_the_batch_size_is_what_a_second_suffices_for(seconds_an_image, expected, classifier, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(runtimes.time, "monotonic", lambda: clock[0])

    def run(images):
        assert images.shape == (8, 96, 96, 3)
        clock[0] += len(images) * seconds_an_image
        return np.zeros((len(images), 5), np.float32)

    assert runtimes._batch_that_takes(run, classifier, 8) == expected


def test_building_leaves_classifier_and_process_as_they_were(classifier):
    threads = torch.get_num_threads()
    before = {name: value.clone() for name, value in classifier.module.state_dict().items()}
    for runtime in RUNTIMES:
        runtimes.build(classifier, runtime=runtime, device="cpu")
    for name, value in classifier.module.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.is_contiguous()
    assert torch.get_num_threads() == threads
    assert not torch.is_autocast_enabled("cpu")


class Greedy(torch.nn.Module):
    """Has memory for three images at a time."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, pixels):
        if len(pixels) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixels.mean((2, 3))


def test_a_gpu_out_of_memory_gets_smaller_parts(classifier, images):
    greedy = replace(classifier, module=Greedy(3), names=("r", "g", "b"))
    run = runtimes._TorchPass(runtimes._FromPixels(greedy), torch.device("cpu"), 16)
    np.testing.assert_allclose(run(images), images.mean((1, 2)) / 255, atol=1e-4)
    assert run.part == 2
    hopeless = runtimes._TorchPass(runtimes._FromPixels(replace(greedy, module=Greedy(0))), torch.device("cpu"), 16)
    with pytest.raises(InputError, match="too little free memory"):
        hopeless(images)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"runtime": "onnx"}, "no runtime 'onnx'"),
        ({"precision": "int8"}, "no precision 'int8'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "meta"}, "no device 'meta'"),
        ({"device": "cuda:99"}, "no GPU 'cuda:99'"),
        ({"device": "99"}, "no GPU '99'"),
        ({"batch_size": 0}, "batch size is 0"),
    ],
)
def test_choices_that_do_not_exist_are_explained(classifier, choice, reason):
    with pytest.raises(InputError, match=reason):
        runtimes.build(classifier, **choice)


def test_without_openvino_torch_is_used(classifier, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else real(name, *a))
    assert runtimes.build(classifier, device="cpu").description.startswith("torch")
    with pytest.raises(InputError, match="not installed"):
        runtimes.build(classifier, runtime="openvino", device="cpu")


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@gpu
def test_a_gpu_equals_the_cpu_in_full_precision_and_agrees_in_half(classifier, images):
    reference = runtimes.build(classifier, runtime="torch", precision="full", device="cpu")(images)
    full = runtimes.build(classifier, precision="full")
    assert full.description.startswith("torch float32 on")
    np.testing.assert_allclose(softmax(full(images)), softmax(reference), atol=1e-4)
    auto = runtimes.build(classifier)
    assert auto.description.startswith("torch float16")
    assert (auto(images).argmax(1) == reference.argmax(1)).all()
    with pytest.raises(InputError, match="OpenVINO runs on the CPU"):
        runtimes.build(classifier, runtime="openvino")
