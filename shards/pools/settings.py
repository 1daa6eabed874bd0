"""What a run can be told of its pool; light, as the command line loads it for its help."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Unlabeled images from WebDatasets, read as they are: no conversion, no index."""

    urls: tuple[str, ...] = ()
    """tars of the pool, with braces: 's3://bucket/pool-{000000..099999}.tar'; a path, a glob, http,
    https, s3, gs, 'pipe:COMMAND', or @FILE with one of these a line; none: no pool"""
    share: float = 1.0
    """share of the unlabeled images of a step that come from the pool; the others are those of the
    data set"""
    member: str = ""
    """extension of the images in the tars, such as image.jpg; empty: jpg, jpeg, png or webp"""
    window: int = 32
    """images within which each row of the batch is shuffled, beyond the order of the tars"""
    stall: float = 30.0
    """seconds without a byte after which a tar is read anew"""
    retries: int = 3
    """times that a tar is read anew before what is left of it is skipped, and counted"""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"--pool.share must lie above 0, and be 1 at most; got {self.share}")
        if not 1 <= self.window <= 10_000:
            raise ValueError(f"--pool.window must lie from 1 to 10000; got {self.window}")
        if not 0 < self.stall <= 3600:
            raise ValueError(f"--pool.stall must be above 0, and 3600 at most; got {self.stall}")
        if not 0 <= self.retries <= 100:
            raise ValueError(f"--pool.retries must lie from 0 to 100; got {self.retries}")
