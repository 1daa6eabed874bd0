"""The papers' networks whole: encoders and heads as the papers put them together."""

from torch import nn

from .encoders.resnet import STEMS, Form, ResNet
from .encoders.wideresnet import WideResNet
from .encoders.xception import Xception65
from .heads import deeplabv3plus as deeplab
from .heads.deeplabv2 import parallel
from .heads.head import Head
from .heads.ladder import ladder
from .heads.pooling import GlobalPooling
from .network import Encoder, SegmentationNetwork
from .norm import freeze_batch_norm_affine


def join(encoder: Encoder, head: Head, num_classes: int) -> SegmentationNetwork:
    """Return the network of an encoder and a head."""
    return SegmentationNetwork(
        encoder,
        head.decoder,
        head.classifier,
        num_classes=num_classes,
        output_stride=head.output_stride,
        multiple=head.multiple,
    )


def swiftnet(depth: int, num_classes: int, *, taps: str = "relu") -> SegmentationNetwork:
    """Return SwiftNet on ResNet-18 or -34.

    Args:
        depth: 18 or 34.
        num_classes: number of classes.
        taps: features for skips and pooling: "relu", after the last ReLU of a stage (both released
            codes), or "sum", before it (the one-way paper's words).
    """
    if taps not in ("sum", "relu"):
        raise ValueError(f"taps must be 'sum' or 'relu'; got {taps!r}")
    encoder = ResNet(depth, preactivation_taps=taps == "sum")
    return join(encoder, ladder(encoder, num_classes), num_classes)


def deeplabv2(
    depth: int,
    num_classes: int,
    *,
    branches: int = 4,
    freeze_affine: bool = False,
    form: Form | None = None,
) -> SegmentationNetwork:
    """Return DeepLabv2 on a ResNet with dilations 2 and 4.

    Args:
        depth: 50 or 101.
        num_classes: number of classes.
        branches: 4 (the papers), or 2: the released codes return inside their summation and so
            use the first two classifiers only.
        freeze_affine: do not train scales and shifts of batch norms, as the one-way consistency
            paper counts parameters.
        form: "torchvision" or "caffe", where its blocks stride and dilate (`ResNet.set_form`);
            None: torchvision's, unless a file of weights is Caffe's.
    """
    encoder = ResNet(depth, stride=8, form=form or "torchvision")
    encoder.form_given = form is not None
    if freeze_affine:
        freeze_batch_norm_affine(encoder)
    return join(encoder, parallel(encoder, num_classes, branches=branches), num_classes)


def deeplabv3plus(
    depth: int,
    num_classes: int,
    *,
    head: str = "plain",
    stem: str | None = None,
    encoder_stride: int | None = None,
    dropout: float | None = None,
) -> SegmentationNetwork:
    """Return DeepLabv3+ on a ResNet.

    Args:
        depth: 50 or 101.
        num_classes: number of classes.
        head: "plain", "mkd" or "gta"; sets stem and stride too. GTA-Seg's representation head,
            which no loss uses, is left out.
        stem: "torchvision" (7 x 7), "deep32" (ResNet-C, MKD) or "deep64" (U2PL, GTA-Seg, timm's
            `resnet101s`); None: the head's own. The weights must have the same stem.
        encoder_stride: 16 or 8; None: the head's own.
        dropout: probability of dropping a channel after pyramid and fusion; None: the head's own.
    """
    own = {"plain": ("torchvision", 16), "mkd": ("deep32", 16), "gta": ("deep64", 8)}
    if head not in own:
        raise ValueError(f"head must be one of {', '.join(own)}; got {head!r}")
    stem = stem or own[head][0]
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}; got {stem!r}")
    encoder = ResNet(
        depth,
        stride=own[head][1] if encoder_stride is None else encoder_stride,
        stem_width=STEMS[stem],
        multi_grid=(2, 2, 4) if head == "gta" else None,
        zero_init_residual=head == "gta",
    )
    return _pyramid(encoder, head, num_classes, dropout)


def deeplabv3plus_xception65(
    num_classes: int, *, dropout: float | None = None
) -> SegmentationNetwork:
    """Return DeepLabv3+ on Xception-65 with encoder stride 16.

    Args:
        num_classes: number of classes.
        dropout: probability of dropping a channel after pyramid and fusion; None: 0.1 after the
            pyramid only.
    """
    return _pyramid(Xception65(), "xception", num_classes, dropout)


def _pyramid(
    encoder: Encoder, variant: str, num_classes: int, dropout: float | None
) -> SegmentationNetwork:
    chosen = deeplab.with_dropout(deeplab.VARIANTS[variant], dropout)
    return join(encoder, deeplab.assemble(encoder, chosen, num_classes), num_classes)


def wide_resnet(depth: int, factor: int, num_classes: int) -> SegmentationNetwork:
    """Return a wide residual network that classifies whole images.

    That is segmentation of one pixel: logits are (N,C,1,1), their mask is (N,1,1).
    """
    encoder = WideResNet(depth, factor)
    # The classifier keeps PyTorch's law for linear layers, as the WRN codes do; bias zero.
    classifier = nn.Conv2d(encoder.channels[-1], num_classes, 1)
    nn.init.zeros_(classifier.bias)  # pyright: ignore[reportArgumentType]
    return SegmentationNetwork(
        encoder,
        GlobalPooling(encoder.channels[-1]),
        classifier,
        num_classes=num_classes,
        output_stride=1,
        task="classification",
    )
