"""Write a split: index files over the shards of its data set, nothing is copied.

splits/NAME/labeled/*.idx      images and masks of the labeled samples
splits/NAME/unlabeled/*.idx    images alone of the unlabeled ones: no mask can leak
splits/NAME/all/*.idx          images alone of both
splits/NAME/held_out/*.idx     images and masks that training does not see, if any were held out
splits/NAME/split.json         where it is from, counts, and the sums of its sorted id sets
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..archive import index_text, read_index, write_text
from ..dataset import SPLIT_FILE, SPLITS, Dataset, check_split_name
from ..outside.text import read_json, read_text
from ..sample import parts_of_image
from .choosing import TRAINED, Choice, names_of
from .lists import short_ids


def write_split(dataset: Dataset, name: str, choice: Choice, *, replace: bool = False) -> bool:
    """Write a split; return False where it is there already, as it would be written.

    A split that lost a file, or was stopped while it was written, is made whole. Raises ValueError
    for a name that is no folder name, and where another split has it (unless `replace`).
    """
    check_split_name(name)
    folder = dataset.root / SPLITS / name
    record = _record(dataset, name, choice)
    wanted = _contents(dataset, choice) | {SPLIT_FILE: json.dumps(record, indent=1) + "\n"}
    aside, old = folder.with_name(f".{name}.tmp"), folder.with_name(f".{name}.old")
    if (folder / SPLIT_FILE).is_file():
        if _contents_of(folder) == wanted:
            for left in (aside, old):  # by a kill
                shutil.rmtree(left, ignore_errors=True)
            return False
        if not replace and _found_record(folder / SPLIT_FILE) != record:
            raise ValueError(
                f"{dataset.root} has another split {name!r}: choose another name, or say --replace"
            )
    shutil.rmtree(aside, ignore_errors=True)
    for file, content in wanted.items():
        (aside / file).parent.mkdir(parents=True, exist_ok=True)
        write_text(aside / file, content)
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _found_record(path: Path) -> Any:
    """Read the split.json that is there, whatever is in it."""
    return read_json(path, "say --replace to make the split anew")


def _contents_of(folder: Path) -> dict[str, str | None]:
    """Return the files of a split's folder and what they hold (None: no text)."""
    found: dict[str, str | None] = {}
    for file in folder.rglob("*"):
        if not file.is_dir():
            try:
                found[file.relative_to(folder).as_posix()] = read_text(file)
            except (ValueError, OSError):
                found[file.relative_to(folder).as_posix()] = None
    return found


def _contents(dataset: Dataset, choice: Choice) -> dict[str, str]:
    """Return the index files of a split: path in its folder -> content."""
    trained = [*choice.labeled, *choice.unlabeled]
    sides = {side: set(names) for side, names in (*choice.sides().items(), ("all", trained))}
    contents: dict[str, str] = {}
    for subset in TRAINED:
        if subset not in dataset.subsets:
            continue
        for record in dataset.manifest.subsets[subset].shards:
            rows = dict(read_index(dataset.root / record.index, record.bytes))
            by_name = dict(zip(record.names, record.keys(), strict=True))
            if rows.keys() != set(by_name.values()):
                raise ValueError(
                    f"{dataset.root / record.index} does not list the samples of {record.tar}: run "
                    "the same warpseg convert again"
                )
            for side, names in sides.items():
                masks = side in ("labeled", "held_out")
                keys = [key for name, key in by_name.items() if name in names]
                chosen = [(k, rows[k] if masks else parts_of_image(rows[k])) for k in keys]
                if chosen:
                    contents[f"{side}/{record.index}"] = index_text(chosen)
    return contents


def _record(dataset: Dataset, name: str, choice: Choice) -> dict[str, Any]:
    names = choice.sides()
    ids = short_ids([n for subset in TRAINED for n in names_of(dataset, subset)])
    groups = {
        group: {side: len(set(members) & set(names[side])) for side in names}
        for group, members in dataset.manifest.groups.items()
    }
    shards = {
        shard.tar: shard.sha256
        for subset in TRAINED
        if subset in dataset.subsets
        for shard in dataset.manifest.subsets[subset].shards
    }
    return {
        "name": name,
        **choice.origin,
        "counts": {side: len(n) for side, n in names.items()}
        | {"all": len(choice.labeled) + len(choice.unlabeled)},
        "sha256": {side: _ids_sum(ids[n] for n in names[side]) for side in names},
        "groups": groups,
        "shards": shards,
    }


def _ids_sum(ids: Iterable[str]) -> str:
    """Hash ids, one a line, sorted: equal for equal sets, whatever their order."""
    return hashlib.sha256("".join(f"{i}\n" for i in sorted(ids)).encode()).hexdigest()
