"""Count the classes of each image of a data set that an older version converted."""

from dataclasses import replace

from ..dataset import Dataset
from ..manifest import counts_row
from ..sample import Sample
from .parallel import mapped


def count_classes_of_images(dataset: Dataset, workers: int = 0) -> int:
    """Write the class counts of each image that has a mask into the manifest, where they are not
    there yet; return how many masks were counted.

    Raises ValueError naming the first mask that cannot be decoded.
    """
    if dataset.task != "segmentation":
        return 0
    manifest, counted = dataset.manifest, 0
    subsets = dict(manifest.subsets)
    for name, record in manifest.subsets.items():
        todo = [shard for shard in record.shards if not shard.class_counts]
        if not record.annotated or not todo:
            continue
        names = {shard.tar for shard in todo}
        samples = [s for s in dataset.subset(name).samples() if s.shard.name in names]
        with mapped(_row_of, None, samples, workers=workers) as rows:
            by_key = {sample.key: row for sample, row in zip(samples, rows, strict=True)}
        counted += len(by_key)
        shards = tuple(
            replace(shard, class_counts=tuple(map(by_key.__getitem__, shard.keys())))
            if shard.tar in names
            else shard
            for shard in record.shards
        )
        subsets[name] = replace(record, shards=shards)
    if counted:
        replace(manifest, subsets=subsets).save(dataset.root)
    return counted


def _row_of(_: None, sample: Sample) -> str:
    return counts_row(sample.read_ids())
