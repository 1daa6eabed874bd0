"""A data set that is named by its address: trained on while its shards come."""

import fcntl
import hashlib
import logging
import os
import re
from pathlib import Path

from ...shards.conversion.remote import fetch
from ...shards.manifest import FILE

CACHE, LIMIT = "WARPSEG_CACHE", "WARPSEG_CACHE_GIB"
"""Variables: the folder in which data sets are kept (~/.cache/warpseg), and how many GiB of the
shards of one may be there at a time (all)."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")
_log = logging.getLogger(__name__)


def brought(data: Path) -> Path:
    """Return the folder of a data set; of an address, s3://bucket/data, one in the cache, to which
    shards come as they are needed.

    The ranks of a machine share it. Raises as `fetch`, and ValueError for a limit that is none.
    """
    found = _ADDRESS.fullmatch(str(data))
    if found is None or data.exists():
        return data
    scheme, rest = found.groups()
    url = f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"
    home = Path(os.environ.get(CACHE) or "~/.cache/warpseg").expanduser()
    root = home / hashlib.sha256(url.encode()).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    with open(home / f"{root.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / FILE).is_file():
            _log.info("%s: shards come as they are needed, to %s", url, root)
            fetch(url, root, as_needed=True, limit=_limit())
    return root


def _limit() -> int:
    word = os.environ.get(LIMIT, "0")
    try:
        limit = float(word)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 2**20:
        raise ValueError(f"{LIMIT} must be a number of GiB, 0 for all; got {word!r}")
    return round(limit * 2**30)
