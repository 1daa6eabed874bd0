"""One file from a URL, into memory."""

import urllib.error
import urllib.request

from ...plain import one_line

MOST_BYTES = 2**31
"""A file from outside is never larger."""
SECONDS = 60
"""How long a server may be silent."""


def fetch(address: str) -> bytes:
    """Return the content of a URL: http, https, or what fsspec knows (s3://, gs://, ...).

    Raises FileNotFoundError, naming the URL, for what cannot be read, ValueError for more than
    2 GiB, and RuntimeError where the driver of a storage is not installed.
    """
    scheme = address.split("://")[0].lower()
    data = _over_http(address) if scheme in ("http", "https") else _from_storage(address)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{address} is larger than {MOST_BYTES >> 20} MiB: fetch it to a file")
    return data


def _over_http(address: str) -> bytes:
    try:
        asked = urllib.request.Request(address, headers={"User-Agent": "warpseg"})
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
            return answer.read(MOST_BYTES + 1)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise FileNotFoundError(
            f"{address} cannot be read ({one_line(error)}): see whether it opens in a browser"
        ) from error


def _from_storage(address: str) -> bytes:
    try:
        import fsspec

        with fsspec.open(address, "rb") as file:
            return file.read(MOST_BYTES + 1)  # pyright: ignore
    except ImportError as error:
        raise RuntimeError(
            f'{address} cannot be read ({one_line(error)}): pip install "warpseg[remote]", and the '
            "driver that fsspec names for other storage than S3"
        ) from error
    except Exception as error:  # drivers of storage have errors of their own
        raise FileNotFoundError(
            f"{address} cannot be read ({one_line(error)}): see that it exists and may be read"
        ) from error
