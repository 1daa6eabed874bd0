"""The network of a run, as settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...plain import shown
from .yaml_text import read_yaml

if TYPE_CHECKING:
    from ...models import SegmentationNetwork


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which network is trained, and from what."""

    name: str = "swiftnet-rn18"
    """a name that `warpseg models` lists"""
    weights: str = "none"
    """none (from scratch), imagenet (torchvision's, or a package's), or a file of weights"""
    options: tuple[str, ...] = ()
    """options of the architecture, as name=value (`head=mkd`, `encoder_stride=8`)"""
    sync_batch_norm: bool = False
    """batch statistics over all ranks"""
    batch_norm_momentum: float | None = None
    """share of a batch in each update of running statistics; 0.1 when not given"""
    freeze: Literal["none", "backbone", "norms"] = "none"
    """backbone: it stays as its weights are, batch norms too; the head alone learns; norms: all
    learns, but the backbone's batch norms keep the statistics of its weights in every pass"""
    lora_rank: int = 0
    """rank by which the attention of a backbone adapts, its own weights frozen; 0: no adaptation.
    Exports hold the sum"""
    lora_alpha: float = 8.0
    """what the adaptation is multiplied by, divided by its rank"""

    def __post_init__(self) -> None:
        for word in self.options:
            if "=" not in word:
                raise ValueError(f"--network.options takes name=value; got {shown(word)}")
        if self.batch_norm_momentum is not None and not 0 < self.batch_norm_momentum <= 1:
            raise ValueError(
                f"--network.batch-norm-momentum must lie in (0, 1]; got {self.batch_norm_momentum}"
            )

        if self.lora_rank < 0:
            raise ValueError(f"--network.lora-rank must be at least 0; got {self.lora_rank}")
        if self.lora_rank and self.freeze == "backbone":
            raise ValueError(
                "--network.lora-rank adapts what --network.freeze backbone keeps: choose one"
            )

    def parsed_options(self) -> dict[str, Any]:
        """Return the options as keyword arguments of the builder.

        Raises ValueError for a value that is neither a word, a number nor a list of them.
        """
        options = {}
        for word in self.options:
            name, value = word.split("=", 1)
            found = read_yaml(value, f"--network.options {shown(word)}")
            for part in found if isinstance(found, list) else [found]:
                if not isinstance(part, str | int | float | None):
                    raise ValueError(
                        f"--network.options {shown(word)} takes a word, a number or a list of them"
                    )
            options[name] = found
        return options

    def build(self, num_classes: int, *, weights: str | None = None) -> SegmentationNetwork:
        """Build the network on the CPU, with other weights than the settings' if given."""
        from ...models import build_network, set_batch_norm_momentum

        network = build_network(
            self.name, num_classes, weights or self.weights, **self.parsed_options()
        )
        if self.batch_norm_momentum is not None:
            set_batch_norm_momentum(network, self.batch_norm_momentum)
        return network

    def prepare(self, network: SegmentationNetwork) -> None:
        """Take out of training what does not learn, once weights are loaded."""
        if self.freeze == "backbone":
            network.freeze_backbone()
        if self.freeze == "norms":
            network.freeze_norms()
        if self.lora_rank:
            from ...models import adapt_attention

            adapt_attention(network, self.lora_rank, self.lora_alpha)
