"""What streams ask of images that are not RGB of 8 bits."""

from ...shards.bands.bands import PLAIN, Bands, kind_words
from ...shards.pools.settings import PoolSettings
from ..normalization import NormalizationSettings
from ..settings import GeometrySettings, LoaderSettings


def fill_of(
    geometry: GeometrySettings, look: NormalizationSettings, channels: Bands
) -> tuple[int, ...]:
    """Return the levels of padding: those that are given, else the mean of each channel."""
    if geometry.fill is None:
        return tuple(round(channels.highest * value) for value in look.mean)
    if channels.kind == PLAIN:
        return geometry.fill
    if any(geometry.fill):
        raise ValueError(
            f"--geometry.fill {geometry.fill} is a colour, and the images have "
            f"{kind_words(channels.kind)}: say None (the mean of each channel) or 0 0 0"
        )
    return (0,) * channels.count


def check_channels(
    kind: tuple[int, int],
    look: NormalizationSettings,
    weak_photometric: bool,
    pool: PoolSettings | None,
    loader: LoaderSettings,
) -> None:
    """Raise ValueError for what does not go together with images of a kind, channels and bits."""
    if len(look.mean) != kind[0]:
        raise ValueError(
            f"the normalisation has {len(look.mean)} channels, and the images {kind_words(kind)}: "
            "leave --normalization out (the data set's own), or give one number for each"
        )
    if kind == PLAIN:
        return
    faults = {
        "--weak-photometric changes hue and saturation": weak_photometric,
        "--pool.urls holds RGB of 8 bits": pool is not None,
        "--loader.cache device keeps RGB of 8 bits": loader.cache == "device",
    }
    fault = next((what for what, asked in faults.items() if asked), None)
    if fault is not None:
        raise ValueError(f"{fault}, and the images have {kind_words(kind)}: leave it out")
