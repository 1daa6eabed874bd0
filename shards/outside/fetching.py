"""One file from an address, into memory."""

from ...plain import one_line
from .transfer import PIPE, Transfer

MOST_BYTES = 2**31
"""A file from outside is never larger."""
SECONDS = 60
"""How long a server may be silent."""
_CHUNK = 2**18


def fetch(address: str) -> bytes:
    """Return the content of an address: http, https, file, or what fsspec knows (s3://, gs://).

    Raises FileNotFoundError, naming it, for what cannot be read, ValueError for more than 2 GiB and
    for a command, and RuntimeError where the driver of a storage is not installed.
    """
    if address.lower().startswith(PIPE):
        raise ValueError(f"{address} is a command: pipe its output to -")
    try:
        with Transfer(address, SECONDS) as file:
            data = bytearray()
            while len(data) <= MOST_BYTES and (chunk := file.read(_CHUNK)):
                data += chunk
    except (RuntimeError, ImportError) as error:
        raise RuntimeError(
            f'{address} cannot be read ({one_line(error)}): pip install "warpseg[remote]", and the '
            "driver that fsspec names for other storage than S3"
        ) from error
    except Exception as error:  # drivers of storage have errors of their own
        raise FileNotFoundError(
            f"{address} cannot be read ({one_line(error)}): see that it exists and may be read"
        ) from error
    if len(data) > MOST_BYTES:
        raise ValueError(f"{address} is larger than {MOST_BYTES >> 20} MiB: fetch it to a file")
    return bytes(data)
