"""How a network is asked for labels: the protocol of a score."""

from dataclasses import dataclass
from typing import Literal

from ... import IGNORE


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a network is asked for labels; part of the protocol, and printed with every score."""

    mode: Literal["whole", "center_crop", "sliding", "resize"] = "whole"
    """whole: the image at its own size; center_crop: only its middle, padded where it is smaller;
    sliding: windows that overlap, averaged; resize: image and mask brought to one size, at which
    the score is taken."""
    crop_size: tuple[int, int] | None = None
    """Height and width of the centre crop or of a sliding window, in pixels."""
    stride: float = 2 / 3
    """Step between sliding windows as a share of crop_size."""
    border: Literal["shift", "cut"] = "shift"
    """Where a sliding window would reach over the border: shift it back, or cut it off, as
    UniMatch's code on Cityscapes does; its last windows are then small."""
    window_batch: int = 4
    """Sliding windows that pass through the network at once; fewer need less memory."""
    size: tuple[int, int] | None = None
    """Height and width of mode resize (DMT on Cityscapes: 512 1024)."""
    bound: tuple[int, int] | None = None
    """Short and long edge, in pixels, that the image is enlarged or shrunk to fit, its shape kept;
    labels are still made and scored at its own size (MKD on VOC: 512 512)."""
    multiple: int = 1
    """Pixels of which height and width of what the network sees, in mode whole, are brought to the
    nearest multiple, by shrinking or enlarging; labels are still made and scored at the image's own
    size (UniMatch V2: the 14 of a patch)."""
    pad_to: tuple[int, int] | None = None
    """Least height and width of what the network sees in mode whole; smaller images are padded
    below and on the right, and the padding is never scored (DMT on VOC: 505 505, SimpleBaseline on
    Cityscapes: 1025 2049)."""
    fill: tuple[int, int, int] | None = None
    """RGB levels (0 to 255) of the padding (DMT on VOC: 0 0 0); None takes the mean colour of the
    normalisation."""
    padding_class: int | None = None
    """Class that pixels outside the image count as in mode center_crop; None leaves them out
    (GTA-Seg's released code on VOC: 0, which flatters background)."""
    scales: tuple[float, ...] = (1.0,)
    """Factors at which the image is labeled; more than one are averaged."""
    flip: bool = False
    """Label the mirrored image, too, and average."""
    average: Literal["softmax", "logits"] = "softmax"
    """What is averaged over windows, scales and flips."""
    mean_over: Literal["occurring", "all"] = "occurring"
    """Classes of the mean IoU: those that are true or predicted somewhere; or all, of which the
    others count 0, as in UniMatch's code."""
    align_corners: bool = False
    """Enlarge logits with their corners on the image's corners, as the codes of UniMatch, U2PL,
    GTA-Seg and DST-CBC do: for networks that were trained there; exports do alike."""
    by: str | None = None
    """Also score each group of images by itself: scene (the file's name up to its first _ or -),
    folder, a regular expression with one group, or a file of names and groups."""

    def __post_init__(self) -> None:
        for name in ("crop_size", "size", "bound", "pad_to"):
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or min(value) < 1):
                raise ValueError(
                    f"{flag_of(name)} takes two lengths of 1 pixel or more; got {value}"
                )
        if (self.crop_size is None) == (self.mode in ("center_crop", "sliding")):
            raise ValueError(f"evaluation mode {self.mode} {_needs('crop_size', self.crop_size)}")
        if (self.size is None) == (self.mode == "resize"):
            raise ValueError(f"evaluation mode {self.mode} {_needs('size', self.size)}")
        if self.pad_to is not None and (self.mode != "whole" or self.bound is not None):
            raise ValueError(f"{flag_of('pad_to')} is for mode whole, without {flag_of('bound')}")
        if self.bound is not None and self.mode not in ("whole", "sliding"):
            raise ValueError(f"{flag_of('bound')} is for mode whole or sliding, not {self.mode}")
        if self.fill is not None and (
            len(self.fill) != 3 or not all(0 <= level <= 255 for level in self.fill)
        ):
            raise ValueError(
                f"{flag_of('fill')} takes three levels from 0 to 255 or None; got {self.fill}"
            )
        if self.padding_class is not None and (
            self.mode != "center_crop" or not 0 <= self.padding_class < IGNORE
        ):
            raise ValueError(
                f"{flag_of('padding_class')} is a class id or None, and for mode center_crop; got "
                f"{self.padding_class} for mode {self.mode}"
            )
        if not 0 < self.stride <= 1:
            raise ValueError(
                f"{flag_of('stride')} must be above 0 and at most 1; got {self.stride}"
            )
        if self.border == "cut" and self.mode != "sliding":
            raise ValueError(f"{flag_of('border')} cut is for mode sliding, not {self.mode}")
        if self.multiple < 1:
            raise ValueError(f"{flag_of('multiple')} must be at least 1; got {self.multiple}")
        if self.multiple > 1 and (self.mode != "whole" or self.pad_to is not None):
            raise ValueError(
                f"{flag_of('multiple')} is for mode whole, without {flag_of('pad_to')}"
            )
        if self.window_batch < 1:
            raise ValueError(
                f"{flag_of('window_batch')} must be at least 1; got {self.window_batch}"
            )
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(
                f"{flag_of('scales')} takes one or more factors above 0; got {self.scales}"
            )

    def describe(self) -> str:
        """Return the protocol in a few words, for printing beside a score."""
        words = [self.mode.replace("_", " ")]
        lengths = {"crop_size": "", "size": "to ", "bound": "bound ", "pad_to": "padded to "}
        for name, word in lengths.items():
            if (value := getattr(self, name)) is not None:
                words.append(f"{word}{value[0]}x{value[1]}")
        if self.fill is not None and (self.pad_to is not None or self.crop_size is not None):
            words.append("fill " + " ".join(map(str, self.fill)))
        if self.padding_class is not None:
            words.append(f"padding as class {self.padding_class}")
        if self.multiple > 1:
            words.append(f"to multiples of {self.multiple}")
        if self.mode == "sliding":
            words.append(f"stride {self.stride:.3g}")
        if self.border == "cut":
            words.append("cut at the border")
        if self.scales != (1.0,):
            words.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
        if self.flip:
            words.append("flip")
        if self.mode == "sliding" or self.flip or len(self.scales) > 1:
            words.append(f"mean {self.average}")
        if self.align_corners:
            words.append("corners aligned")
        over = "all classes" if self.mean_over == "all" else "classes that occur"
        return ", ".join([*words, f"mIoU over {over}"])


def flag_of(name: str) -> str:
    """Return the option that sets a field of `EvaluationSettings`."""
    return f"--evaluation.{name.replace('_', '-')}"


def _needs(name: str, value: tuple[int, int] | None) -> str:
    """Return what a mode misses, or what it cannot use, perhaps a setting of the run's own."""
    if value is None:
        return f"needs {flag_of(name)}"
    return f"does not take {flag_of(name)}, which is {value}: add {flag_of(name)} None"
