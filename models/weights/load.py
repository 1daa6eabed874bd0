"""Load pretrained weights into a network, and say exactly what was loaded.

    none                                random, as the papers initialise
    imagenet                            torchvision's ImageNet weights of the backbone, or those of
                                        a package (lite0)
    ResNet50_Weights.IMAGENET1K_V2      any of torchvision's weights that fit the backbone
    resnet101.pth, model.safetensors    a file of torchvision, timm, Meta, Hugging Face, OpenMMLab,
                                        U2PL, GTA-Seg or UniMatch V2, as the encoder, and DPT, know
                                        their names
    package:NAME                        the weights inside an installed package
    latest.pth#model_ema                one of the networks in a file
    caffe:deeplabv2-coco.pth            a conversion from Caffe (recognised without the prefix too,
                                        unless it was renamed), whose images were BGR
    RUN, RUN/checkpoint.pt#teacher      a WarpSeg run, checkpoint (and network) or export

The backbone must fit whole: a file that would leave a part of it random is refused. Decoder and
classifier are taken where they fit. Of a network for images of other channels than three the first
layer is adapted (see `first_layer`), and the report says so.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..first_layer import RGB, adapt_filters
from ..network import SegmentationNetwork, trait
from ..norm import plain_state_dict
from . import names
from .files import FLAG, Source, read_enum, read_file, read_package

log = logging.getLogger("warpseg")


_MEANING = {
    "missing": " (begin anew)",
    "mismatched": " (begin anew)",
    "unexpected": " (not used)",
    "left_out": "",
}
"""What becomes of the tensors that a report names by these words."""


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What a source of weights gave a network."""

    source: str
    loaded: tuple[str, ...]
    """Parameters and buffers of the network that were loaded."""
    missing: tuple[str, ...]
    """Those that the source does not have; they keep their initialisation."""
    mismatched: tuple[str, ...]
    """Those that have another shape in the source, with both shapes."""
    unexpected: tuple[str, ...]
    """Names in the source that the network has no place for."""
    left_out: tuple[str, ...] = ()
    """Names that only the source's own training used."""
    adapted: str = ""
    """How the first layer was made to fit images of other channels."""

    def summary(self) -> str:
        """Return one line that names what is missing, mismatched and unexpected, and says what that
        means."""
        lacking = any(name.startswith("backbone.") for name in (*self.missing, *self.mismatched))
        part = "encoder" if self.missing or self.mismatched else "network"
        whole = "" if lacking else f", the whole {part}"
        parts = [f"{self.source}: loaded {len(self.loaded)} tensors{whole}"]
        for what, meaning in _MEANING.items():
            if getattr(self, what):
                parts.append(f"{what.replace('_', ' ')}: {_some(getattr(self, what))}{meaning}")
        return "; ".join([*parts, self.adapted] if self.adapted else parts)


def load_weights(network: SegmentationNetwork, weights: str) -> WeightsReport:
    """Load weights into a network; set its `pretrained`, `normalization` and `found`.

    Args:
        network: a network of this package, before `convert_dsbn`.
        weights: a source as listed in this module's docstring.

    Raises FileNotFoundError and ValueError for a source that cannot be read or does not fit, and
    RuntimeError where a download fails.
    """
    source = _read(network, weights)
    state = source.state
    if not state.keys() <= network.state_dict().keys():
        state = {names.translate(key, names.COMMON): v for key, v in state.items()}
        state = names.dpt_names(state)
        state = trait(network.backbone, "names")(state)
    if source.caffe and "conv1.weight" in state:
        # Our images are RGB; the first convolution is linear, so turning it round is exact.
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    adapted = _adapt_first(network, state)
    matched, report = _match(network, state, weights)
    report = replace(report, adapted=adapted)
    _refuse_misfit(network, report)
    network.load_state_dict(matched, strict=False)
    if source.normalization is not None:
        network.normalization = source.normalization
    _choose_form(network, source, weights)
    parameters = {name for name, _ in network.named_parameters()}
    network.pretrained = frozenset(parameters.intersection(report.loaded))
    log.info("%s", report.summary())
    return report


def _adapt_first(network: SegmentationNetwork, state: dict[str, Tensor]) -> str:
    """Adapt the filters in a state that see RGB to the channels that the network's images have;
    return how, in words, nothing where the state has such filters already."""
    for name in (network.first_weight, f"backbone.{network.first_weight}"):
        found = state.get(name)
        if network.in_channels != RGB and found is not None and found.shape[1] == RGB:
            state[name] = adapt_filters(found, network.in_channels)
            how = (
                "summed" if network.in_channels == 1 else f"repeated, times 3/{network.in_channels}"
            )
            return f"{name} adapted from 3 to {network.in_channels} channels ({how})"
    return ""


def _read(network: SegmentationNetwork, weights: str) -> Source:
    """Return what a source holds, under its own names."""
    if weights == "imagenet":
        source, hint = (trait(network.backbone, n) for n in ("imagenet", "imagenet_hint"))
        if not source:
            raise ValueError(f"there are no ImageNet weights for {network.name} here: {hint}")
        return _read(network, source)
    if weights.startswith("package:"):
        return Source(state=read_package(weights.removeprefix("package:")))
    path, _, inside = weights.removeprefix("caffe:").partition("#")
    if "/" not in path and "_Weights." in path:
        return Source(state=read_enum(path))
    source = read_file(Path(path).expanduser(), inside or None)
    state = plain_state_dict(source.state)
    told = names.is_caffe(state)
    if told or weights.startswith("caffe:"):
        form = "caffe" if told else None
        return Source(state=state, normalization="caffe", form=form, caffe=True)
    return replace(source, state=state)


def _choose_form(network: SegmentationNetwork, source: Source, weights: str) -> None:
    """Let a ResNet stride and dilate as its weights were trained to, where that is left open."""
    backbone = network.backbone
    if not hasattr(backbone, "set_form") or not (source.caffe or source.form):
        return
    open_to_choice = trait(backbone, "form_given") is False
    if source.form is None and open_to_choice:
        log.warning(
            f"{weights}: its names do not tell whether its blocks stride in the first 1 x 1 "
            "convolution, as Caffe's do, or in the 3 x 3, as torchvision's; taken: torchvision's. "
            "Say --network.options form=caffe or form=torchvision"
        )
    elif source.form and source.form != trait(backbone, "form"):
        if open_to_choice:
            cast(Any, backbone).set_form(source.form)
            network.found["form"] = source.form
        elif trait(backbone, "form_given") is None:
            log.warning(
                f"{weights} was trained with blocks that stride as those of {source.form}, "
                f"which {network.name} does not: its features will differ"
            )


def _match(
    network: SegmentationNetwork, state: dict[str, Tensor], source: str
) -> tuple[dict[str, Tensor], WeightsReport]:
    """Return the tensors that fit, under the network's names, and the report."""
    wanted = network.state_dict()
    leave_out = getattr(network.backbone, "leave_out", lambda name: False)
    matched, mismatched, unexpected, left_out = {}, [], [], []
    for key, value in state.items():
        name = f"backbone.{key}" if f"backbone.{key}" in wanted else key
        if name not in wanted:
            (left_out if leave_out(key) else unexpected).append(key)
        elif wanted[name].shape != value.shape:
            shapes = f"{tuple(value.shape)} for {tuple(wanted[name].shape)}"
            mismatched.append(f"{name} {shapes}")
        else:
            matched[name] = value
    differing = {text.split()[0] for text in mismatched}
    missing = [
        name
        for name in wanted
        if name not in matched
        and name not in differing
        and not name.endswith("num_batches_tracked")
    ]
    report = WeightsReport(
        source=source,
        loaded=tuple(matched),
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        unexpected=tuple(unexpected),
        left_out=tuple(left_out),
    )
    return matched, report


def _refuse_misfit(network: SegmentationNetwork, report: WeightsReport) -> None:
    """Raise ValueError unless the backbone and the source's backbone are the same."""
    children = {name for name, _ in network.backbone.named_children()}
    faults = {
        "missing": [name for name in report.missing if name.startswith("backbone.")],
        "of another shape": [n for n in report.mismatched if n.startswith("backbone.")],
        "in the file only": [
            name
            for name in report.unexpected
            if name.split(".")[0] in children and not names.is_head(name)
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{what}: {_some(found)}" for what, found in faults.items() if found)
        raise ValueError(
            f"{report.source} does not fit the backbone of {network.name} ({listed}); pass weights "
            f"of the same depth and stem as {FLAG}"
        )


def _some(items: tuple[str, ...] | list[str], most: int = 5) -> str:
    """Return the first items and the number of the others."""
    text = ", ".join(items[:most])
    return f"{text} and {len(items) - most} more" if len(items) > most else text
