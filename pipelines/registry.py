"""The strong views by name: each file of views/ registers its own. Without torch until one is
looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import Registry

if TYPE_CHECKING:
    from .strong import View

VIEWS: Registry[type[View]] = Registry("strong view", modules=f"{__package__}.views")
"""Classes of strong views, by the name for `--strong.view`."""
