"""Protocols of evaluation where an image is labeled by windows."""

from dataclasses import replace

from ...engine.protocol import EvaluationSettings, flag_of


def protocol_of_windows(asked: EvaluationSettings) -> EvaluationSettings:
    """Return the protocol of each window: sliding windows of a protocol give way to those of the
    image; scales and flips stay.

    Raises ValueError for one that brings the whole image to another size.
    """
    name = "mode" if asked.mode == "resize" else "bound" if asked.bound else None
    if name is not None:
        value = getattr(asked, name)
        raise ValueError(
            f"{flag_of(name)} {value} is of whole images, and this one is labeled by windows: say "
            f"--evaluation.mode whole {flag_of('size')} None {flag_of('bound')} None"
        )
    return replace(asked, mode="whole", crop_size=None, border="shift", pad_to=None)
