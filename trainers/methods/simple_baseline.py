"""SimpleBaseline: self-training with strong augmentation (Yuan et al., "A simple baseline for
semi-supervised semantic segmentation with strong data augmentation", Algorithm 1).

    h <- supervised training on the labeled images                              the teacher
    each round:  v    <- argmax of h on the unlabeled images, at five scales, mirrored too
                 each step:  x, y <- labeled batch, weak views
                             u, v <- pseudo-labeled batch, u strongly augmented (SDA)
                             p, q <- h([x, u]); batch norms know x from u (DSBN)
                             L    <- CE(p, y) + SCL(q, v)
                             step of the optimizer on L
                 the student h, by the statistics of x alone, is the next round's teacher

Tables 2 and 3 are settings: `batch_norm`, `strong_on`, `train_on`. In the released code the batch
norm goes by the strength of the view and the loss by the origin of the label, and weak and strong
views are made of labeled and unlabeled images alike: `strong_on both`, `strong_share 0.5`,
`dsbn_by strength`.
"""

from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ... import IGNORE
from ...kernels import self_correction
from ...models import SegmentationNetwork, batch_norm_policy, convert_dsbn, dsbn_branch
from ...pipelines.batches import LabeledBatch
from ...pipelines.streams.labeled import strong_rows
from ..engine.runtime import Runtime
from ..engine.stages import Method, Stage
from ..engine.streams import Batches, StreamSpec
from .registry import method
from .settings.simple_baseline import SimpleBaselineSettings
from .shared.losses import label_loss

STREAMS = {"both": ("labeled", "pseudo"), "labeled": ("labeled",), "pseudo": ("pseudo",)}
STRONG = {"both": ("labeled", "pseudo"), "labeled": ("labeled",), "unlabeled": ("pseudo",)}
CONSTANT_WEIGHTS = {"sce": 0.5, "ce": 1.0}
"""Weight of the cross-entropy in the losses in which it is constant."""


@method("simple-baseline", SimpleBaselineSettings)
class SimpleBaseline(Method):
    """Cross-entropy on masks and self-correction on pseudo-labels, in one pass."""

    joins_batches = True

    def __init__(
        self, settings: SimpleBaselineSettings, runtime: Runtime, num_classes: int
    ) -> None:
        self.settings = settings
        self.runtime = runtime
        self.streams = streams_of(settings)
        self.sizes = [spec.batch_size for spec in self.streams.values()]
        self.branches, self.order, change = (0, 0), None, None
        if settings.batch_norm == "dsbn":
            main, aux = branch_rows(self.streams, settings.dsbn_by, runtime.rank)
            self.branches = (len(main), len(aux))
            if main + aux != sorted(main + aux):
                self.order = torch.tensor(main + aux, device=runtime.device)
            change = partial(convert_dsbn, shared_affine=settings.shared_affine)
        if settings.fixed_statistics != "own":
            change = self._with_pretrained_statistics
        self.student = runtime.train_network(settings.network, num_classes, change=change)
        self.networks = {"student": self.student}
        self.optimized = {"student": ("student",)}
        self.evaluated = "student"
        self.stages = (Stage(name="joint", loss=self.joint, optimizer="student"),)

    def _with_pretrained_statistics(self, network: nn.Module) -> nn.Module:
        """Give the backbone the running statistics that its pretrained weights came with; the
        decoder, which they do not have, keeps its own."""
        settings = self.settings
        if settings.fixed_statistics == "pretrained":
            raise ValueError(
                "--fixed-statistics pretrained is known to rounds alone; a student by itself needs "
                "the weights: imagenet, or a file"
            )
        network = cast(SegmentationNetwork, network)
        donor = settings.network.build(network.num_classes, weights=settings.fixed_statistics)
        theirs = dict(donor.backbone.named_buffers())
        for name, buffer in network.backbone.named_buffers():
            if name.rpartition(".")[2] in ("running_mean", "running_var"):
                buffer.copy_(theirs[name])
        return network

    def regime(self, step: int) -> Hashable:
        """Return what the stages take from the number of a step: nothing."""
        return ()

    def joint(self, batches: Batches, step: int) -> dict[str, Tensor]:
        """CE(p, y) + SCL(q, v), each a mean over the kept pixels of all ranks."""
        taken: dict[str, LabeledBatch] = {name: batches[name] for name in self.streams}
        logits = self._ask(torch.cat([batch.image for batch in taken.values()]))
        parts = dict(zip(taken, logits.split(self.sizes), strict=True))
        terms = {}
        if "labeled" in parts:
            mask = taken["labeled"].mask
            terms["labeled"] = label_loss(parts["labeled"], mask, self.settings, self.runtime)
        if "pseudo" in parts:
            terms["pseudo"] = self._correct(parts["pseudo"], taken["pseudo"].mask)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _correct(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the self-correction loss of pseudo-labels (SCL), or what is to replace it."""
        settings = self.settings
        kept = (label != IGNORE) | (settings.normalizer == "all")
        return self_correction(
            logits,
            label,
            log_zero=settings.log_zero,
            weight=CONSTANT_WEIGHTS.get(settings.correction),
            reversed=settings.correction == "reversed",
            denominator=self.runtime.average(kept.sum()),
        )

    def _ask(self, image: Tensor) -> Tensor:
        """Return the student's logits of the joint batch, batch norms as the settings say."""
        if self.settings.batch_norm == "fixed":
            with batch_norm_policy(self.student, "running"):
                return self.student(image)
        if self.settings.batch_norm == "trainable":
            return self.student(image)
        with dsbn_branch(self.student, self.branches):
            if self.order is None:
                return self.student(image)
            # The rows of the main branch first, whatever their order, and the logits as they were.
            ordered = image[self.order].contiguous(memory_format=torch.channels_last)
            return self.student(ordered)[self.order.argsort()]


def branch_rows(
    streams: Mapping[str, StreamSpec], by: str, rank: int
) -> tuple[list[int], list[int]]:
    """Return which rows of the joint batch pass the main branch of DSBN, and which the other.

    by: "origin", pseudo-labeled images pass the other one, or "strength", augmented ones do. Raises
    ValueError where a branch would stay empty.
    """
    rows: tuple[list[int], list[int]] = ([], [])
    for name, spec in streams.items():
        share = float(name == "pseudo")
        if by == "strength":
            share = spec.strong_share if spec.strong is not None else 0.0
        second = strong_rows(spec.batch_size, rank, share)
        first = len(rows[0]) + len(rows[1])
        for row in range(spec.batch_size):
            rows[row in second].append(first + row)
    if not all(rows):
        raise ValueError(
            "--batch-norm dsbn needs images for both of its branches in every batch; choose "
            "trainable, or --dsbn-by strength with a --strong-share between 0 and 1"
        )
    return rows


def streams_of(settings: SimpleBaselineSettings) -> dict[str, StreamSpec]:
    """Return the streams that the student is trained on: labeled first.

    Raises ValueError where pseudo-labels are wanted, but none are named.
    """
    names = STREAMS[settings.train_on]
    if "pseudo" in names and not settings.labels:
        raise ValueError(
            "training on pseudo-labels needs --labels FOLDER, made by warpseg pseudo-label; a "
            "simple-baseline recipe without -student makes them itself"
        )
    specs = {
        "labeled": partial(StreamSpec, subset="labeled", batch_size=settings.batch_size),
        "pseudo": partial(
            StreamSpec,
            subset="unlabeled",
            batch_size=settings.unlabeled_batch_size,
            pseudo=Path(settings.labels),
        ),
    }
    strong = STRONG.get(settings.strong_on, ())
    return {
        name: specs[name](
            kind="labeled",
            strong=settings.strong if name in strong else None,
            strong_share=settings.strong_share,
        )
        for name in names
    }
