"""Settings of the normalisation: whose mean and standard deviation the input is given by."""

from dataclasses import dataclass
from typing import Literal

Triple = tuple[float, float, float]
CHANNELS = 16
"""Channels that images may have."""
Look = Literal["network", "given", "imagenet", "cityscapes", "caffe", "cifar10", "half", "none"]
"""Whose statistics normalise the input: the network's, those given, or those of a name."""
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class NormalizationSettings:
    """Mean and standard deviation of the input in [0, 1]: RGB, or as many channels as it has."""

    name: Look = "network"
    """network: those that the network's weights were trained with; a name, such as caffe, or a mean
    and a standard deviation overrule them."""
    mean: tuple[float, ...] = _IMAGENET[0]
    """Mean of red, green and blue; of other images of each channel, the data set's where not
    given."""
    std: tuple[float, ...] = _IMAGENET[1]
    """Standard deviation of red, green and blue; likewise."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not 1 <= len(self.mean) <= CHANNELS:
            raise ValueError(
                f"mean and std take as many numbers as images have channels, 1 to {CHANNELS}; got "
                f"{self.mean} and {self.std}"
            )
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean must be RGB in [0, 1]; got {self.mean}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be above 0; got {self.std}")
        given = (self.mean, self.std) != _IMAGENET
        if self.name in _NAMED and not given:
            for field, value in zip(("mean", "std"), _NAMED[self.name], strict=True):
                object.__setattr__(self, field, value)
        elif self.name in _NAMED and (self.mean, self.std) != _NAMED[self.name]:
            raise ValueError(
                f"normalization {self.name} has a mean and a std of its own; leave out mean "
                f"{self.mean} and std {self.std}, or the name"
            )
        elif self.name == "network" and given:
            object.__setattr__(self, "name", "given")

    def same(self, other: "NormalizationSettings") -> bool:
        """Tell whether two of them do the same to an image."""
        return (self.mean, self.std) == (other.mean, other.std)


_NAMED: dict[str, tuple[Triple, Triple]] = {
    "imagenet": _IMAGENET,
    # One-way consistency: statistics of the Cityscapes training images.
    "cityscapes": (
        (73.15 / 255, 82.90 / 255, 72.30 / 255),
        (47.67 / 255, 48.49 / 255, 47.73 / 255),
    ),
    # Weights of Caffe (ImageNet's mean, levels from 0 to 255; models.weights turns BGR round).
    "caffe": ((122.675 / 255, 116.669 / 255, 104.008 / 255), (1 / 255, 1 / 255, 1 / 255)),
    # DMT: statistics of CIFAR-10's training images.
    "cifar10": ((0.49137, 0.48235, 0.44667), (0.24706, 0.24353, 0.26157)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
NORMALIZATIONS: dict[str, NormalizationSettings] = {
    name: NormalizationSettings(name=name)  # pyright: ignore[reportArgumentType]
    for name in _NAMED
}
"""The normalisations that have a name."""


def normalization_of(choice: NormalizationSettings | str) -> NormalizationSettings:
    """Return the settings for a name of NORMALIZATIONS, or the settings themselves.

    Raises ValueError for an unknown name.
    """
    if isinstance(choice, NormalizationSettings):
        return choice
    if choice not in NORMALIZATIONS:
        raise ValueError(f"no normalisation {choice!r}; there are: {', '.join(NORMALIZATIONS)}")
    return NORMALIZATIONS[choice]
