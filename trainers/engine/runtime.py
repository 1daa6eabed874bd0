"""Where a run lives: its device, its rank among the others, its precision, and networks made ready
for both."""

import copy
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...models import SegmentationNetwork
from ...plain import environment_number
from .networks import NetworkSettings
from .speed import Precision, SpeedSettings

# Each rank keeps its own batch-norm statistics; PyTorch 2.15 gave the flag another name.
KEEP_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)

log = logging.getLogger("warpseg")


@dataclass(kw_only=True)
class Runtime:
    """Device, rank and precision of this process.

    `precision` "auto" is bf16 on GPUs that have it, fp16 on older ones and fp32 on a CPU.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    precision: Precision = "auto"
    speed: SpeedSettings = field(default_factory=SpeedSettings)
    wrapped: list[DistributedDataParallel] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.precision == "auto":
            if self.device.type != "cuda":
                self.precision = "fp32"
            else:
                self.precision = "bf16" if torch.cuda.is_bf16_supported(False) else "fp16"

    @property
    def dtype(self) -> torch.dtype:
        """Type of images and activations: bfloat16, float16 or float32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision, torch.float32)

    def autocast(self) -> AbstractContextManager:
        """Return the context of a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler of fp16, or one that changes nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network that is not trained to the device, in channels-last layout."""
        return cast(Any, network).to(self.device, memory_format=torch.channels_last)

    def train_network(
        self,
        settings: NetworkSettings,
        num_classes: int,
        *,
        change: Callable[[nn.Module], nn.Module] | None = None,
    ) -> nn.Module:
        """Build a network as the settings say and make it ready for training; `change` comes
        before it is placed and wrapped."""
        network = settings.build(num_classes)
        if settings.sync_batch_norm and self.world_size > 1:
            if self.speed.compile != "none":
                log.warning("torch.compile cuts the network at each synchronised batch norm")
            # timm's, as torch's loses the activations inside timm's batch norms.
            network = cast(SegmentationNetwork, convert_sync_batchnorm(network))
        settings.prepare(network)
        return self.distribute(change(network) if change else network)

    def distribute(self, network: nn.Module) -> nn.Module:
        """Make a network ready for training: placed, and its gradients averaged over the ranks."""
        network = self.speed.compile_network(self.place(network))
        if self.world_size == 1:
            return network
        if self.speed.step_graph_ranks:
            # What DistributedDataParallel hooks onto gradients cannot be recorded; it also begins
            # so.
            for tensor in (*network.parameters(), *network.buffers()):
                dist.broadcast(tensor.detach(), 0)
            return network
        # Not static_graph: with no_sync, which stages need, it leaves gradients unreduced.
        own_buffers: dict[str, Any] = {KEEP_BUFFERS: False}
        wrapped = DistributedDataParallel(
            network,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            bucket_cap_mb=self.speed.bucket_mib,
            **own_buffers,
        )
        self.wrapped.append(wrapped)
        return wrapped

    def frozen_copy(self, network: nn.Module) -> nn.Module:
        """Return a copy of a network that takes no gradients and starts in evaluation mode."""
        copied = copy.deepcopy(unwrap(network)).requires_grad_(False).eval()
        return self.speed.compile_network(copied)

    def without_sync(self) -> AbstractContextManager:
        """Return the context of backward passes whose gradients later ones complete."""
        contexts = ExitStack()
        for network in self.wrapped:
            contexts.enter_context(network.no_sync())
        return contexts

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give all ranks the mean of each gradient, where no wrapper of a network does.

        Ranks must agree on which parameters have gradients, as they do on the stages of a step.
        """
        if self.world_size == 1 or not self.speed.step_graph_ranks:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                kinds.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in kinds.values():
            self._average_all(gradients)

    def _average_all(self, tensors: list[Tensor]) -> None:
        """Give all ranks the mean of each of some tensors of a dtype, integers rounded down."""
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(joined)
        if joined.is_floating_point():
            joined = joined / self.world_size
        else:
            joined = joined // self.world_size
        parts = joined.split([tensor.numel() for tensor in tensors])
        shaped = [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(tensors, shaped)  # pyright: ignore[reportPrivateImportUsage]

    def average(self, value: Tensor) -> Tensor:
        """Return the mean over the ranks of a tensor that takes no gradient.

        A loss divided by the average count, its gradient then averaged over the ranks, is the loss
        of the joined batch.
        """
        if self.world_size == 1:
            return value
        value = value.detach().float().clone()
        dist.all_reduce(value)
        return value / self.world_size

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the ranks of a tensor that takes no gradient, in its own dtype."""
        if self.world_size == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def average_buffers(self, networks: Iterable[nn.Module]) -> None:
        """Give all ranks the mean of each buffer (integers rounded down), so all hold one network.

        Batch norms see each rank's images alone; without this, ranks would score, and a resumed
        run go on with, other statistics than rank 0's. Modules that say `same_on_ranks` have seen
        all ranks' images already, and are left as they are.
        """
        if self.world_size == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        modules = [module for network in networks for module in network.modules()]
        for module in modules:
            # Frozen statistics are one on all ranks, too, and a mean would round them.
            if getattr(module, "same_on_ranks", False) or getattr(module, "frozen", False):
                continue
            for buffer in module.buffers(recurse=False):
                kinds.setdefault(buffer.dtype, []).append(buffer)
        for buffers in kinds.values():
            self._average_all(buffers)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set on any rank. A synchronisation point."""
        return bool(self.largest(float(flag))[0])

    def largest(self, *values: float) -> list[float]:
        """Return the largest of each value over the ranks. A synchronisation point."""
        if self.world_size == 1:
            return list(values)
        joined = torch.tensor(values, device=self.device)
        dist.all_reduce(joined, op=dist.ReduceOp.MAX)
        return joined.tolist()

    def gather(self, value: object) -> list:
        """Return the plain values of all ranks on rank 0, an empty list elsewhere."""
        if self.world_size == 1:
            return [value]
        values: list = [None] * self.world_size
        dist.gather_object(value, values if self.rank == 0 else None)
        return values if self.rank == 0 else []

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier()

    def seed(self, *words: int) -> None:
        """Seed the global generators of the device and of the CPU from the words and the rank.

        Called at every step, it makes dropout and all other draws a function of the step alone, so
        a resumed run needs no generator states.
        """
        seed = int(np.random.SeedSequence([*words, self.rank]).generate_state(1)[0])
        if self.device.type == "cpu":
            # All generators would take twenty times as long: CUDA's queue writes a traceback down.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside its distributed wrapper."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def open_runtime(
    device: str = "auto", precision: Precision = "auto", speed: SpeedSettings | None = None
) -> Runtime:
    """Read the rank from torchrun's environment, join the group, and choose the device.

    `device` "auto" is this rank's GPU where there is one and the CPU elsewhere. Raises ValueError
    for a word that names no device and RuntimeError for a GPU that is not there.
    """
    rank, world_size = environment_number("RANK", 0), environment_number("WORLD_SIZE", 1)
    if world_size < 1 or rank >= world_size:
        raise ValueError(f"RANK {rank} of WORLD_SIZE {world_size} is no rank: see torchrun")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(
            f"device {device} was asked for, but torch {torch.__version__} sees no GPU; "
            "use --device cpu"
        )
    chosen = torch.device(device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", environment_number("LOCAL_RANK", 0))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    if world_size > 1 and not dist.is_initialized():
        if chosen.type == "cuda":
            dist.init_process_group("nccl", device_id=chosen)
        else:
            dist.init_process_group("gloo")
    return Runtime(
        device=chosen,
        rank=rank,
        world_size=world_size,
        precision=precision,
        speed=speed or SpeedSettings(),
    )


_kept: list[bool] = []
"""One entry for each `kept_group` that is open."""


def close_runtime() -> None:
    """Leave the group of ranks, if there is one and nobody keeps it."""
    if dist.is_initialized() and not _kept:
        dist.destroy_process_group()


@contextmanager
def kept_group() -> Iterator[None]:
    """Keep the group of ranks that is joined inside until the block ends.

    For several runs, one after the other, in one process: what ranks told torchrun's store to find
    each other stays there, so a group that was left cannot be joined again.
    """
    _kept.append(True)
    try:
        yield
    finally:
        _kept.pop()
        close_runtime()
