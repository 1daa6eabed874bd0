"""DINOv2 and DINOv3: counts, the files of three projects, positions, and what must not be lost."""

import re

import pytest
import timm
import torch
import torch.nn.functional as F
from warpseg.models import build_network, count_parameters, load_weights
from warpseg.models.encoders.registry import ENCODERS

COUNTS = {
    "dinov2-s14": 22_056_192,
    "dinov2-b14": 86_579_712,
    "dinov2-l14": 304_367_616,
    "dinov3-s16": 21_586_944,
    "dinov3-s16plus": 28_683_264,
    "dinov3-b16": 85_641_216,
    "dinov3-l16": 303_079_424,
    # Without the norm behind the last stage, 2 x 768 (768, 1024, 1536).
    "dinov3-convnext-tiny": 27_820_128 - 2 * 768,
    "dinov3-convnext-small": 49_454_688 - 2 * 768,
    "dinov3-convnext-base": 87_566_464 - 2 * 1024,
    "dinov3-convnext-large": 196_230_336 - 2 * 1536,
}
TIMM = {
    "dinov2-s14": "vit_small_patch14_dinov2",
    "dinov3-s16": "vit_small_patch16_dinov3",
    "dinov3-s16plus": "vit_small_plus_patch16_dinov3",
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_published(name):
    with torch.device("meta"):
        assert count_parameters(ENCODERS[name]()) == COUNTS[name]


def test_registers_add_four_tokens():
    with torch.device("meta"):
        assert count_parameters(ENCODERS["dinov2-s14"](registers=True)) == 22_056_192 + 3 * 384


def random_state(name, **options):
    """A state with timm's names whose every tensor is drawn, and timm's network that holds it."""
    model = timm.create_model(
        name, num_classes=0, global_pool="", dynamic_img_size=True, **options
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05, generator=generator)
    return {key: value.clone() for key, value in model.state_dict().items()}, model


def split_rows(state, key, names):
    """Replace a joined projection by its three parts, under names."""
    for name, part in zip(names, state.pop(key).chunk(3), strict=True):
        if name is not None:
            state[name] = part.clone()


def renamed(state, *pairs):
    result = {}
    for key, value in state.items():
        for old, new in pairs:
            key = re.sub(old, new, key)
        result[key] = value
    return result


def meta_v2(state):
    return {**state, "mask_token": torch.zeros(1, 384)}


def hugging_face_v2(state):
    state = dict(state)
    for block in range(12):
        for kind in ("weight", "bias"):
            start = f"encoder.layer.{block}.attention.attention"
            names = [f"{start}.{part}.{kind}" for part in ("query", "key", "value")]
            split_rows(state, f"blocks.{block}.attn.qkv.{kind}", names)
    return renamed(
        state | {"mask_token": torch.zeros(1, 384)},
        (r"^(cls_token|mask_token)$", r"embeddings.\1"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
        (r"^norm\.", "layernorm."),
    )


def meta_v3(state):
    """Meta's: a joined bias of queries, keys and values, its mask, and tables that are computed."""
    new = renamed(
        state,
        (r"^reg_token$", "storage_tokens"),
        (r"\.gamma_(\d)$", r".ls\1.gamma"),
        (r"\.fc1_g\.", ".w1."),
        (r"\.fc1_x\.", ".w2."),
    )
    gated = any(".w1." in key for key in new)
    new = renamed(new, (r"\.mlp\.fc2\.", ".mlp.w3.")) if gated else new
    for block in range(12):
        new[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(3 * 384)
        mask = torch.cat([torch.ones(384), torch.zeros(384), torch.ones(384)])
        new[f"blocks.{block}.attn.qkv.bias_mask"] = mask
    return new | {
        "mask_token": torch.zeros(1, 384),
        "rope_embed.periods": torch.ones(16),
        "local_cls_norm.weight": torch.ones(384),
        "local_cls_norm.bias": torch.zeros(384),
    }


def hugging_face_v3(state):
    state = dict(state)
    for block in range(12):
        start = f"layer.{block}.attention"
        names = [f"{start}.{part}_proj.weight" for part in "qkv"]
        split_rows(state, f"blocks.{block}.attn.qkv.weight", names)
        for part in "qv":
            state[f"{start}.{part}_proj.bias"] = torch.zeros(384)
    return renamed(
        state | {"mask_token": torch.zeros(1, 1, 384)},
        (r"^(cls_token|mask_token)$", r"embeddings.\1"),
        (r"^reg_token$", "embeddings.register_tokens"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
        (r"^blocks\.", "layer."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.gamma_(\d)$", r".layer_scale\1.lambda1"),
        (r"\.mlp\.fc1_g\.", ".mlp.gate_proj."),
        (r"\.mlp\.fc1_x\.", ".mlp.up_proj."),
        (r"\.mlp\.fc1\.", ".mlp.up_proj."),
        (r"\.mlp\.fc2\.", ".mlp.down_proj."),
    )


SLOW = pytest.mark.slow
FILES = [
    pytest.param("dinov2-s14", dict, (), marks=SLOW),
    pytest.param("dinov2-s14", meta_v2, ("mask_token",), marks=SLOW),
    ("dinov2-s14", hugging_face_v2, ("mask_token",)),
    pytest.param("dinov3-s16", dict, (), marks=SLOW),
    ("dinov3-s16", meta_v3, None),
    pytest.param("dinov3-s16", hugging_face_v3, None, marks=SLOW),
    pytest.param("dinov3-s16plus", meta_v3, None, marks=SLOW),
    ("dinov3-s16plus", hugging_face_v3, None),
]


@pytest.mark.parametrize(("name", "form", "left_out"), FILES)
def test_files_of_each_project_load_whole(name, form, left_out, save_weights):
    """The map is a bijection but for what is left out, and the features are timm's."""
    state, model = random_state(TIMM[name])
    file = form(state)
    kind = "weights.safetensors" if form in (hugging_face_v2, hugging_face_v3) else "weights.pth"
    network = build_network(f"linear-{name}", 5).eval()
    report = load_weights(network, save_weights(file, kind))
    loaded = {key.removeprefix("model."): v for key, v in network.backbone.state_dict().items()}
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(loaded[key], value), key
    assert report.unexpected == ()
    assert not any(key.startswith("backbone.") for key in report.missing)
    if left_out is not None:
        assert report.left_out == left_out
    else:
        wanted = r"mask_token|periods|bias_mask|qkv\.bias|local_cls_norm"
        assert all(re.search(wanted, key) for key in report.left_out)
        assert len(report.left_out) == {dict: 0, meta_v3: 28, hugging_face_v3: 13}[form]
        assert "left out: " in report.summary()
    image = torch.randn(1, 3, 64, 96) if "v3" in name else torch.randn(1, 3, 56, 56)
    options = {"indices": [2, 5, 8, 11], "norm": True, "intermediates_only": True}
    with torch.no_grad():
        if "v2" in name:
            # timm antialiases positions; Meta's resampling is tested below.
            model._pos_embed = network.backbone.model._pos_embed
        expected = model.forward_intermediates(image, **options)
        for ours, theirs in zip(network.encode(image), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_registers_of_dinov2_take_the_position_of_the_class_token(save_weights):
    state, _ = random_state("vit_small_patch14_reg4_dinov2")
    position = torch.randn(1, 1, 384)
    file = dict(state) | {"register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 384)}
    del file["reg_token"]
    file["pos_embed"] = torch.cat((position, state["pos_embed"]), 1)
    file["cls_token"] = state["cls_token"] - position
    network = build_network("linear-dinov2-s14", 5, save_weights(file), registers=True)
    loaded = network.backbone.model
    torch.testing.assert_close(loaded.cls_token, state["cls_token"])
    assert torch.equal(loaded.pos_embed, state["pos_embed"])
    assert torch.equal(loaded.reg_token, state["reg_token"])
    with pytest.raises(ValueError, match=r"in the file only: model.reg_token"):
        build_network("linear-dinov2-s14", 5, save_weights(file))


def test_biases_that_would_be_dropped_are_an_error(save_weights):
    state, _ = random_state("vit_small_patch16_dinov3")
    file = hugging_face_v3(state)
    file["layer.3.attention.v_proj.bias"] = torch.full((384,), 0.1)
    path = save_weights(file)
    with pytest.raises(ValueError, match=r"biases of queries and values .* qkv_bias=true"):
        build_network("linear-dinov3-s16", 5, path)
    network = build_network("linear-dinov3-s16", 5, path, qkv_bias=True)
    assert (network.backbone.model.blocks[3].attn.v_bias == 0.1).all()
    assert (network.backbone.model.blocks[2].attn.v_bias == 0).all()
    assert network.pretrained >= {"backbone.model.blocks.3.attn.q_bias"}


@pytest.mark.parametrize("size", [(37, 37), (16, 16), (5, 9)])
@torch.no_grad()
def test_positions_are_resampled_as_dinov2_does(size):
    """A transcription: cubic, at the scale of the size and a tenth, no antialiasing."""
    encoder = ENCODERS["dinov2-s14"]()
    model = encoder.model
    model.pos_embed.normal_()
    tokens = torch.randn(2, *size, 384)
    found = model._pos_embed(tokens)
    table = model.pos_embed[:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    if size != (37, 37):
        factor = tuple(float(side + 0.1) / 37 for side in size)
        table = F.interpolate(table, scale_factor=factor, mode="bicubic", antialias=False)
    assert table.shape[-2:] == size
    expected = tokens.flatten(1, 2) + table.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(found[:, 1:], expected)
    first = model.cls_token[0, 0] + model.pos_embed[0, 0]
    torch.testing.assert_close(found[:, 0], first.expand(2, -1))
    theirs = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True)
    theirs.load_state_dict(model.state_dict())
    agrees = torch.allclose(theirs._pos_embed(tokens), found, atol=1e-5)
    assert agrees == (size == (37, 37))


@torch.no_grad()
def test_dinov3_does_not_jitter_in_training():
    network = build_network("linear-dinov3-s16", 5)
    image = torch.randn(1, 3, 32, 48)
    training = network.train().encode(image)
    for first, second in zip(training, network.eval().encode(image), strict=True):
        assert torch.equal(first, second)
        assert first.isfinite().all()


@torch.no_grad()
def test_convnext_of_dinov3_loads_metas_and_hugging_faces_names(save_weights):
    model = timm.create_model("convnext_tiny", num_classes=0)
    state = model.state_dict()
    meta = renamed(
        state,
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^(stages\.\d)\.blocks\.", r"\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
        (r"^head\.norm\.", "norm."),
    ) | {"norms.3.weight": torch.ones(768), "norms.3.bias": torch.zeros(768)}
    face = renamed(
        state,
        (r"^stem\.", "stages.0.downsample_layers."),
        (r"^stages\.(\d)\.downsample\.", r"stages.\1.downsample_layers."),
        (r"^(stages\.\d)\.blocks\.", r"\1.layers."),
        (r"\.conv_dw\.", ".depthwise_conv."),
        (r"(layers\.\d+)\.norm\.", r"\1.layer_norm."),
        (r"\.mlp\.fc(\d)\.", r".pointwise_conv\1."),
        (r"^head\.norm\.", "layer_norm."),
    )
    assert "downsample_layers.0.1.weight" in meta
    assert "stages.2.layers.8.layer_norm.weight" in face
    image = torch.randn(1, 3, 64, 64)
    expected = model.eval().forward_intermediates(image, intermediates_only=True)
    for file in (meta, face):
        network = build_network("light-dinov3-convnext-tiny", 5).eval()
        report = load_weights(network, save_weights(file))
        assert report.unexpected == ()
        assert not any(key.startswith("backbone.") for key in report.missing)
        for ours, theirs in zip(network.encode(image), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_features_at_the_native_size_are_timms():
    network = build_network("linear-dinov2-s14", 5).eval()
    theirs = timm.create_model("vit_small_patch14_dinov2", num_classes=0, global_pool="").eval()
    theirs.load_state_dict(network.backbone.model.state_dict())
    image = torch.randn(1, 3, 518, 518)
    expected = theirs.forward_intermediates(
        image, indices=[2, 5, 8, 11], norm=True, intermediates_only=True
    )
    for ours, wanted in zip(network.encode(image), expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
