"""Vectors equal those of the DINO paper's architecture, whatever file the weights are in; all else is refused."""

import argparse
import http.server
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional

from shared.embeddings import backbones
from shared.errors import InputError, StorageError, WeightsError

VITS8 = "vit_small_patch8_224.dino"
TINY = "test_vit.r160_in1k"


# The vision transformer of Dosovitskiy et al. (2021), as Caron et al. (2021) trained it without labels: written from
# the papers, with the names of the original release.


def dino(state: dict[str, torch.Tensor], images: torch.Tensor, heads: int) -> torch.Tensor:
    """The CLS token of normalised images (N, 3, S, S) at the size that the position embeddings are for."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    count, _, side, _ = images.shape
    grid = side // patch
    # Each patch as a row of its pixels, times a matrix.
    cut = images.reshape(count, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5).reshape(count, grid * grid, -1)
    tokens = cut @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]
    tokens = torch.cat([state["cls_token"].expand(count, -1, -1), tokens], 1) + state["pos_embed"]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    for block in range(depth):
        own = {k.removeprefix(f"blocks.{block}."): v for k, v in state.items() if k.startswith(f"blocks.{block}.")}
        tokens = tokens + attention(own, norm(own, "norm1", tokens), heads)
        hidden = norm(own, "norm2", tokens) @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"]
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
        tokens = tokens + hidden @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]
    return norm(state, "norm", tokens)[:, 0]


def attention(own: dict[str, torch.Tensor], tokens: torch.Tensor, heads: int) -> torch.Tensor:
    count, length, width = tokens.shape
    query, key, value = (
        (tokens @ weight.T + bias).reshape(count, length, heads, width // heads).transpose(1, 2)
        for weight, bias in zip(own["attn.qkv.weight"].chunk(3), own["attn.qkv.bias"].chunk(3), strict=True)
    )
    shares = torch.softmax(query @ key.transpose(2, 3) * (width // heads) ** -0.5, -1)
    mixed = (shares @ value).transpose(1, 2).reshape(count, length, width)
    return mixed @ own["attn.proj.weight"].T + own["attn.proj.bias"]


def norm(state: dict[str, torch.Tensor], name: str, tokens: torch.Tensor) -> torch.Tensor:
    centred = tokens - tokens.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def random_vit(width: int, depth: int, patch: int, grid: int) -> dict[str, torch.Tensor]:
    """Random parameters of a size that makes vectors differ from image to image, in the original release's layout."""
    generator = torch.Generator().manual_seed(width + patch)

    def draw(*shape: int, spread: float, around: float = 0.0) -> torch.Tensor:
        return around + spread * torch.randn(*shape, generator=generator)

    state = {
        "cls_token": draw(1, 1, width, spread=0.5),
        "pos_embed": draw(1, 1 + grid * grid, width, spread=0.5),
        "patch_embed.proj.weight": draw(width, 3, patch, patch, spread=1 / patch),
        "patch_embed.proj.bias": draw(width, spread=0.1),
    }
    for block in range(depth):
        for name, (rows, columns) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            state[f"blocks.{block}.{name}.weight"] = draw(rows, columns, spread=1.5 * columns**-0.5)
            state[f"blocks.{block}.{name}.bias"] = draw(rows, spread=0.1)
        for name in ("norm1", "norm2"):
            state[f"blocks.{block}.{name}.weight"] = draw(width, spread=0.2, around=1.0)
            state[f"blocks.{block}.{name}.bias"] = draw(width, spread=0.1)
    return state | {"norm.weight": draw(width, spread=0.2, around=1.0), "norm.bias": draw(width, spread=0.1)}


@pytest.fixture(scope="module")
def vits8() -> dict[str, torch.Tensor]:
    return random_vit(384, 12, 8, 28)


def with_prefix(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.fixture(scope="module")
def files(vits8, tmp_path_factory) -> dict[str, Path]:
    """The same weights in each layout in which people have them."""
    folder = tmp_path_factory.mktemp("dino")
    heads = {"module.head.mlp.0.weight": torch.ones(8, 384), "module.head.last_layer.weight_g": torch.ones(8, 1)}
    trainer = {
        "student": with_prefix({k: torch.zeros_like(v) for k, v in vits8.items()}, "module.backbone."),
        "teacher": with_prefix(vits8, "backbone.") | {k.removeprefix("module."): v for k, v in heads.items()},
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
        "epoch": 800,
    }
    wrapped = {"teacher": with_prefix(vits8, "module.backbone.") | heads}
    torch.save(vits8, folder / "plain.pth", _use_new_zipfile_serialization=False)
    torch.save(trainer, folder / "trainer.pth")
    torch.save(wrapped, folder / "wrapped.pth")
    save_file(vits8, folder / "model.safetensors")
    return {file.stem: file for file in folder.iterdir()}


def small_images(side: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(side))


def vectors(backbone: backbones.Backbone, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return backbone.module(images)


# Parity


@pytest.fixture(scope="module")
def plain(files) -> backbones.Backbone:
    return backbones.load("dino_vits8", weights=files["plain"])


def test_vectors_equal_the_architecture_of_the_paper_at_its_own_size(plain, vits8):
    assert (plain.name, plain.layer, plain.framing, plain.imgsz, plain.outputs) == (VITS8, "CLS token", "pad", 224, 384)
    assert plain.mean == (0.485, 0.456, 0.406)
    assert plain.std == (0.229, 0.224, 0.225)
    assert not plain.module.training
    assert not any(p.requires_grad for p in plain.module.parameters())
    images = small_images(224)
    found, expected = vectors(plain, images), dino(vits8, images, heads=6)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    # So far apart are vectors of different images, against which 1e-4 is to be seen.
    assert (found[0] - found[1]).abs().max() > 0.1


@pytest.mark.parametrize("layout", ["plain", "trainer", "wrapped", "model"])
def test_every_layout_gives_the_same_vectors_and_hash(layout, files, vits8, plain):
    backbone = backbones.load(VITS8, imgsz=48, weights=files[layout])
    assert (backbone.sha256, backbone.imgsz) == (plain.sha256, 48)
    images = small_images(48)
    resampled = dict(vits8)
    places = vits8["pos_embed"][:, 1:].reshape(1, 28, 28, 384).permute(0, 3, 1, 2)
    places = functional.interpolate(places, (6, 6), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    resampled["pos_embed"] = torch.cat([vits8["pos_embed"][:, :1], places], 1)
    torch.testing.assert_close(vectors(backbone, images), dino(resampled, images, heads=6), atol=1e-4, rtol=0)


def test_vectors_equal_those_of_timm_with_its_own_loading(files):
    overlay = {"file": str(files["plain"])}
    reference = timm.create_model(VITS8, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, img_size=48)
    backbone = backbones.load("dino_vits8", imgsz=48, weights=files["trainer"])
    images = small_images(48)
    with torch.inference_mode():
        expected = reference.eval()(images)
    torch.testing.assert_close(vectors(backbone, images), expected, atol=1e-5, rtol=0)


def saved(name: str, file: Path, **how: object) -> torch.nn.Module:
    """A network of timm with random parameters, as its file on the hub has them, and with its classifier."""
    torch.manual_seed(0)
    model = timm.create_model(name, **how).eval()
    save_file(model.state_dict(), file)
    return model


@pytest.mark.parametrize(
    ("name", "layer", "outputs", "imgsz"),
    [
        (TINY, "CLS token", 64, 64),
        ("test_convnext.r160_in1k", "pooled features", 64, 96),
        ("test_efficientnet.r160_in1k", "pooled features", 256, 32),
    ],
)
def test_other_networks_of_timm_give_their_cls_token_or_pooled_features(name, layer, outputs, imgsz, tmp_path):
    model = saved(name, tmp_path / "w.safetensors")
    backbone = backbones.load(name, imgsz=imgsz, framing="crop", weights=tmp_path / "w.safetensors")
    assert (backbone.name, backbone.layer, backbone.framing, backbone.outputs) == (name, layer, "crop", outputs)
    assert backbone.mean == tuple(model.pretrained_cfg["mean"])
    if hasattr(model, "set_input_size"):
        model.set_input_size((imgsz, imgsz))
    images = small_images(imgsz)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(vectors(backbone, images), expected, atol=1e-5, rtol=0)


def test_dinov3_gives_its_cls_token_though_timm_pools_it(tmp_path):
    model = saved("vit_small_patch16_dinov3", tmp_path / "w.safetensors", num_classes=0)
    backbone = backbones.load("dinov3_vits16", imgsz=48, weights=tmp_path / "w.safetensors")
    assert (backbone.name, backbone.layer) == ("vit_small_patch16_dinov3.lvd1689m", "CLS token")
    images = small_images(48)
    with torch.inference_mode():
        expected = model.forward_features(images)[:, 0]
    torch.testing.assert_close(vectors(backbone, images), expected, atol=1e-5, rtol=0)


def test_the_original_release_of_dinov2_is_renamed_by_timm(tmp_path):
    model = saved("vit_small_patch14_reg4_dinov2", tmp_path / "w.safetensors", num_classes=0)
    original = dict(model.state_dict())
    places = torch.cat([torch.full((1, 1, 384), 0.25), original.pop("pos_embed")], 1)
    original |= {"pos_embed": places, "register_tokens": original.pop("reg_token"), "mask_token": torch.zeros(1, 384)}
    original["cls_token"] = original["cls_token"] - 0.25
    torch.save(original, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    given = [tmp_path / "w.safetensors", tmp_path / "dinov2_vits14_reg4_pretrain.pth"]
    timms, metas = (backbones.load("dinov2_vits14_reg", imgsz=42, weights=file) for file in given)
    images = small_images(42)
    torch.testing.assert_close(vectors(metas, images), vectors(timms, images), atol=1e-4, rtol=0)


def test_every_short_name_is_one_of_timm():
    assert all(backbones.is_backbone(short) and timm.is_model(name) for short, name in backbones.SHORT_NAMES.items())
    pretrained = set(timm.list_models(pretrained=True))
    assert set(backbones.SHORT_NAMES.values()) <= pretrained
    assert backbones.is_backbone("resnet18")
    assert not backbones.is_backbone("ptvr@production")
    assert not backbones.is_backbone("hf-hub:somebody/model")


# What cannot be used


@pytest.mark.parametrize(
    ("name", "how", "reason"),
    [
        ("dino_vits9", {}, "dino_vits8"),
        ("vit_small_patch8_224.dyno", {}, "vit_small_patch8_224.dino"),
        ("hf-hub:somebody/model", {}, "no backbone 'hf-hub:somebody/model'"),
        ("dino_vits8", {"framing": "squash"}, "framing 'squash'"),
        ("dino_vits8", {"imgsz": 16}, "from 32 to 2,048"),
        ("dino_vits8", {"imgsz": 4096}, "from 32 to 2,048"),
        ("dino_vits8", {"imgsz": 100}, "choose the image size 96 or 104."),
        ("dinov2_vits14", {"imgsz": 40}, "choose the image size 42."),
        ("dinov2_vits14", {"imgsz": 2047}, "choose the image size 2044."),
    ],
)
def test_choices_that_are_none_are_refused_before_any_weights(name, how, reason, tmp_path):
    with pytest.raises(InputError) as caught:
        backbones.load(name, weights=tmp_path / "none.pth", **how)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


def not_fitting(name: str, file: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        backbones.load(name, imgsz=64, weights=file)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


def test_weights_of_another_size_say_what_differs_and_what_they_look_like(tmp_path):
    torch.save({"teacher": with_prefix(random_vit(768, 12, 8, 28), "backbone.")}, tmp_path / "w.pth")
    said = not_fitting("dino_vits8", tmp_path / "w.pth")
    assert "cls_token is (1, 1, 768) in the file, (1, 1, 384) in vit_small_patch8_224.dino" in said
    assert "it looks like dino_vitb8." in said


def test_patches_of_another_size_are_not_resampled_in_silence(tmp_path):
    torch.save(random_vit(384, 12, 16, 14), tmp_path / "w.pth")
    said = not_fitting("dino_vits8", tmp_path / "w.pth")
    assert "patch_embed.proj.weight is (384, 3, 16, 16) in the file, (384, 3, 8, 8) in" in said
    assert "it looks like dino_vits16." in said


def test_weights_that_lack_a_part_or_have_more_are_refused(tmp_path):
    model = saved(TINY, tmp_path / "w.safetensors")
    state = dict(model.state_dict())
    lacking = {k: v for k, v in state.items() if not k.startswith("blocks.2.")}
    torch.save({**lacking, "blocks.99.norm1.weight": torch.ones(64)}, tmp_path / "w.pth")
    said = not_fitting(TINY, tmp_path / "w.pth")
    assert "missing in the file (blocks.2.norm1.weight" in said
    assert "1 that the network has not (blocks.99.norm1.weight)" in said
    assert "looks like" not in said
    torch.save({**state, "norm.bias": torch.full((64,), float("inf"))}, tmp_path / "w.pth")
    assert "not finite, in norm.bias" in not_fitting(TINY, tmp_path / "w.pth")


# The hub


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty local cache of the hub, which is out of reach."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_weights_come_from_the_local_cache_of_the_hub(cache, tmp_path):
    repo, commit = cache / "models--timm--test_vit.r160_in1k", "0123456789abcdef0123456789abcdef01234567"
    for folder in ("refs", "blobs", f"snapshots/{commit}"):
        (repo / folder).mkdir(parents=True)
    saved(TINY, repo / "blobs" / "feed")
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/feed")
    shutil.copyfile(repo / "blobs" / "feed", tmp_path / "w.safetensors")
    cached = backbones.load("test_vit", imgsz=64)
    assert (cached.name, cached.sha256) == (TINY, backbones.load(TINY, weights=tmp_path / "w.safetensors").sha256)


def unavailable(name: str) -> str:
    with pytest.raises(StorageError) as caught:
        backbones.load(name)
    said = str(caught.value)
    assert "give the weights as a file or s3:// URI in 'weights'." in said
    assert "\n" not in said
    return said


def test_without_a_way_to_the_hub_a_file_is_asked_for(cache):
    assert "no way to the Hugging Face hub" in unavailable("dino_vits8")


class _Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for what it does not give."""

    status, code = 404, ""

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(cache, monkeypatch):
    """A server that speaks for the hub; its answer can be set."""
    import huggingface_hub.constants as constants

    class Answers(_Hub):
        pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield Answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "GatedRepo", "are gated: accept their licence at huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m"),
        (401, "RepoNotFound", "no public weights"),
        (404, "EntryNotFound", "no file of weights"),
    ],
)
def test_what_the_hub_does_not_give_is_said_plainly(hub, status, code, reason):
    hub.status, hub.code = status, code
    assert reason in unavailable("dinov3_vits16")


# Hugging Face folders


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> Path:
    """A small random vision transformer without classifier."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14, initializer_range=0.5
    )
    folder = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_a_folder_without_processor_takes_the_choices(transformer):
    from transformers import AutoModel

    backbone = backbones.load_folder(transformer, "crop", 70)
    assert (backbone.layer, backbone.framing, backbone.imgsz, backbone.outputs) == ("CLS token", "crop", 70, 32)
    assert backbone.mean == (0.485, 0.456, 0.406)
    images = small_images(70)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(transformer).eval()(images).last_hidden_state[:, 0]
    torch.testing.assert_close(vectors(backbone, images), expected, atol=1e-5, rtol=0)


def test_a_classifiers_folder_serves_and_its_processor_counts(vit_folder, tmp_path):
    from transformers import ViTForImageClassification, ViTModel

    backbone = backbones.load_folder(vit_folder, "pad", 224)
    assert (backbone.framing, backbone.imgsz, backbone.outputs) == ("stretch", 48, 32)
    np.testing.assert_allclose(backbone.mean, (0.2, 0.25, 0.3), rtol=1e-6)
    images = small_images(48)
    model = ViTForImageClassification.from_pretrained(vit_folder).eval()
    with torch.inference_mode():
        expected = model.vit(images).last_hidden_state[:, 0]
    torch.testing.assert_close(vectors(backbone, images), expected, atol=1e-5, rtol=0)
    # The same transformer saved alone, with a pooler, which does not matter, is the same backbone.
    alone = ViTModel(model.config)
    alone.load_state_dict(model.vit.state_dict(), strict=False)
    alone.save_pretrained(tmp_path / "alone")
    again = backbones.load_folder(tmp_path / "alone", "pad", 64)
    assert again.sha256 == backbone.sha256
    with torch.inference_mode():
        expected = model.vit(small_images(64), interpolate_pos_encoding=True).last_hidden_state[:, 0]
    torch.testing.assert_close(vectors(again, small_images(64)), expected, atol=1e-5, rtol=0)


def test_folders_that_cannot_be_used_are_refused(transformer, tmp_path):
    from transformers import ConvNextConfig, ConvNextModel

    ConvNextModel(ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])).save_pretrained(tmp_path / "cnn")
    with pytest.raises(WeightsError, match="no CLS token"):
        backbones.load_folder(tmp_path / "cnn", "pad", 64)
    folder = Path(shutil.copytree(transformer, tmp_path / "vit"))
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        backbones.load_folder(folder, "pad", 56)
    weights.unlink()
    with pytest.raises(WeightsError, match=r"model.safetensors is missing"):
        backbones.load_folder(folder, "pad", 56)
    weights.write_bytes(data)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(WeightsError, match=r"do not fit its config.json"):
        backbones.load_folder(folder, "pad", 56)
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config.json"):
        backbones.load_folder(folder, "pad", 56)
