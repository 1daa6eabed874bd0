"""What networks say of masks that they were not trained on, an image at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ... import IGNORE
from ...shards import Dataset, Sample
from ..engine.runtime import Runtime
from ..labels.doubts import Opinion
from ..scoring.inference import evaluating
from ..scoring.trained import TrainedNetwork
from .kept.held_out import Jury, call_juries, learnt_keys
from .kept.opening import open_trained


class Judges:
    """Trained networks on a device, and which images each may judge."""

    def __init__(self, networks: Sequence[TrainedNetwork], runtime: Runtime) -> None:
        self.networks = list(networks)
        self.runtime = runtime
        for trained in self.networks:
            runtime.place(trained.network)

    def juries(self, dataset: Dataset, subset: str) -> list[Jury]:
        """Return who judges which images of a subset with masks.

        Raises ValueError where the networks know other classes than the data set, or label only
        parts of images, and for a subset without masks.
        """
        for trained in self.networks:
            _check(trained, dataset)
        images = dataset.subset(subset)
        if not images.has_masks:
            raise ValueError(
                f"{subset} of {dataset.root} has no masks to look at; choose --subset train or val"
            )
        return call_juries(images, [learnt_keys(trained, dataset) for trained in self.networks])

    def opinions(
        self, samples: Sequence[Sample], members: Sequence[int]
    ) -> Iterator[tuple[np.ndarray, Opinion]]:
        """Yield each image, uint8 (H, W, 3), and what some of the networks say, their probabilities
        averaged. The next image is decoded meanwhile."""
        some = [self.networks[number] for number in members]
        with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
            for trained in some:
                stack.enter_context(evaluating(trained.network))
            ahead = pool.submit(_read, samples[0]) if samples else None
            for number in range(len(samples)):
                assert ahead is not None
                image, mask = ahead.result()
                if number + 1 < len(samples):
                    ahead = pool.submit(_read, samples[number + 1])
                yield image, self._opinion(image, mask, some, samples[number].key)

    def probabilities(self, image: np.ndarray, members: Sequence[int]) -> np.ndarray:
        """Return the mean probabilities of all classes, float32 (C, H, W), of one image: for small
        ones, as `opinions` holds no more than some rows of them."""
        some = [self.networks[number] for number in members]
        with ExitStack() as stack:
            for trained in some:
                stack.enter_context(evaluating(trained.network))
            bands = [mean.cpu().numpy() for _, mean in self._means(image, some)]
        return np.concatenate(bands, axis=1)

    def _means(
        self, image: np.ndarray, some: list[TrainedNetwork]
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and the networks' mean probabilities there, (C, rows, W)."""
        pixels = torch.tensor(image)[None].to(self.runtime.device)
        parts = [trained.probabilities(pixels, self.runtime.dtype) for trained in some]
        for together in zip(*parts, strict=True):
            yield together[0][0], torch.stack([prob for _, prob in together]).mean(0)[0]

    def _opinion(
        self, image: np.ndarray, mask: np.ndarray, some: list[TrainedNetwork], key: str
    ) -> Opinion:
        known = torch.tensor(mask).to(self.runtime.device)
        labels, sure, given = [], [], []
        for rows, mean in self._means(image, some):
            best = mean.max(0)
            labels.append(best.indices.to(torch.uint8))
            sure.append(best.values)
            given.append(_at(mean, known[rows]))
        label, confidence, of_mask = (torch.cat(p).cpu().numpy() for p in (labels, sure, given))
        if not np.isfinite(confidence).all():
            raise ValueError(
                f"a network returns NaN or infinite logits for image {key}: its training diverged; "
                "leave its run out"
            )
        return Opinion(mask, label, confidence, of_mask)


def open_judges(runs: Sequence[Path], runtime: Runtime, network: str | None = None) -> Judges:
    """Load the networks of runs. Raise as `open_trained`."""
    return Judges([open_trained(run, network=network) for run in runs], runtime)


def _check(trained: TrainedNetwork, dataset: Dataset) -> None:
    if dataset.task != "segmentation" or trained.task != "segmentation":
        raise ValueError("masks are looked at in segmentation; these are whole images with a class")
    if trained.classes != dataset.classes:
        raise ValueError(
            f"a network knows the classes {', '.join(trained.classes)}, but {dataset.root} has "
            f"{', '.join(dataset.classes)}: name the data set that it was trained for"
        )
    if trained.evaluation.mode == "center_crop":
        raise ValueError(
            "evaluation mode center_crop labels only the middle of an image; train with "
            "--evaluation.mode whole or sliding, whose runs can judge whole masks"
        )


def _at(prob: Tensor, mask: Tensor) -> Tensor:
    """Return the probability of the mask's class, (H, W); that of class 0 where it has none."""
    known = torch.where(mask == IGNORE, torch.zeros_like(mask), mask)
    return prob.gather(0, known[None].long())[0]


def _read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    return sample.read_image(), sample.read_mask()
