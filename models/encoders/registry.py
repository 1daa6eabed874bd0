"""The encoders by name: builders that take options by keyword and return an `Encoder`.

An encoder that can keep its last features finer, by dilation, takes an option `output_stride`.
"""

from collections.abc import Callable
from typing import Any

from ...registry import Registry

ENCODERS: Registry[Callable[..., Any]] = Registry("encoder", modules=str(__package__))
"""Name -> builder(**options)."""
