"""The strong views of one kernel: photometric change and thin-plate-spline warp, either alone, or
neither ("none")."""

from torch import Tensor

from ...kernels import TPS, Photometric, sample_photometric, sample_tps, strong_view
from ..registry import VIEWS
from ..settings import StrongSettings
from ..strong import Crop, Perturbed, View

_PHOTOMETRIC, _TPS = 0, 1
"""What is drawn at a step; a second view takes the numbers 2 and 3."""


@VIEWS.register("phtps")
@VIEWS.register("ph")
@VIEWS.register("tps")
@VIEWS.register("none")
class PhTps(View):
    """Photometric change and warp; normalisation, weak view and validity come in the same pass."""

    twice = True

    @property
    def any_channels(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether no colour changes."""
        return not self.settings.photometric

    def perturb(self, crop: Crop) -> Perturbed:
        """Draw the change and make the view; the weak one comes with the first of two."""
        settings = self.settings
        changed, tps = self._drawn(crop)
        view = strong_view(
            crop.pixels,
            photometric=changed,
            tps=tps,
            mean=self.look.mean,
            std=self.look.std,
            window=crop.window if crop.paired else None,
            dtype=self.dtype,
            with_weak=crop.paired and crop.number == 0,
            space=settings.photometric_space,
            clamp=settings.clamp,
        )
        valid = view.valid if crop.paired else None
        return Perturbed(strong=view.strong, weak=view.weak, valid=valid, tps=tps)

    def _drawn(self, crop: Crop) -> tuple[Photometric | None, TPS | None]:
        """Draw the parameters for the batches of all ranks at once, so that N ranks draw together
        what one rank draws with N times the batch; return those of the crops."""
        settings, own, device = self.settings, crop.own, crop.pixels.device
        changed = None
        if settings.photometric:
            drawn = sample_photometric(
                crop.total,
                strength=settings.photometric_strength,
                permute=settings.permute,
                generator=crop.generator(_PHOTOMETRIC + 2 * crop.number),
            )
            changed = Photometric(**{name: value[own] for name, value in vars(drawn).items()})
            changed = changed.to(device, non_blocking=True)
        return changed, draw_tps(settings, crop) if settings.warped else None


def draw_tps(settings: StrongSettings, crop: Crop) -> TPS:
    """Draw the warps of the crops, out of those for the batches of all ranks."""
    spline = sample_tps(
        crop.total,
        _size(crop.pixels),
        sigma=settings.tps_sigma,
        preset=settings.tps,
        strength=settings.geometric_strength,
        generator=crop.generator(_TPS + 2 * crop.number),
    )
    warped = TPS(points=spline.points[crop.own], weights=spline.weights[crop.own])
    return warped.to(crop.pixels.device, non_blocking=True)


def _size(pixels: Tensor) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[2]
