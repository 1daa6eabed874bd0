"""The DALI loader: one graph, on the CPU or on the GPU, fed by the plan.

The graph decodes, resamples the window (`roi_start`, `roi_end`; swapped to mirror) and pads. It
draws nothing and remembers nothing: samples and windows come in, so that the stream's position is
its whole state, and the portable loader shows the same crops.

On the CPU only the window is decoded. On the GPU whole images are: region decoding on the GPU is
broken in nvImageCodec 0.9, which DALI 2.4 requires.
"""

# DALI's stubs do not know what its modules and operators take at run time.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ...shards import Sample
from ...shards.images import DAMAGED
from ..settings import LoaderSettings
from ..views.geometry import Window
from .loading import Loader
from .plan import Crops, Plan

INSTALL = 'pip install "warpseg[dali]" (CUDA 12: "warpseg[dali-cuda12]")'


def has_dali() -> bool:
    """Tell whether DALI can be imported."""
    try:
        import nvidia.dali  # noqa: F401
    except ImportError:
        return False
    return True


class DaliLoader(Loader):
    """Feeds the graph with encoded images and windows, and takes crops out: on a CPU without a
    copy."""

    def __init__(
        self, plan: Plan, settings: LoaderSettings, stride: int, device: torch.device
    ) -> None:
        if not has_dali():
            raise RuntimeError(
                f"the dali loader needs NVIDIA DALI: {INSTALL}; or use --loader.loader portable"
            )
        super().__init__(plan, settings, stride, device)
        self._device = device
        # Arrays of numbers need no decoder; one of them in a data set sends all through NumPy, and
        # so does what changes whole images.
        arrays = any(sample.extension == "npy" for sample in plan.samples)
        changed = plan.change is not None
        self._encoded = not (arrays or changed or self._cache is not None)
        on_cpu = device.type == "cpu" and (settings.window_decode or not self._encoded)
        self._partial = on_cpu or changed or self._cache is not None
        self._slicing = self._encoded and self._partial
        self._pipeline: Any = None
        self._fed = self._next = 0
        self._running: deque[tuple[Crops, list[Any]]] = deque()

    def load(self, position: int) -> Crops:
        """Return the batch at `position`; the image is on the loader's device."""
        images = None
        while images is None:
            if self._pipeline is None or position != self._next:
                self._pipeline = self._start(position)
            try:
                (images,) = self._pipeline.run()
            except RuntimeError as error:
                self._recover(error)
        crops, _ = self._running.popleft()
        self._next = position + self._stride
        return replace(crops, image=taken(images.as_tensor(), self._device))

    def restart(self) -> None:
        """Forget what was read ahead, in the graph as well."""
        self._pipeline = None
        super().restart()

    def close(self) -> None:
        """Stop reading ahead and release the graph."""
        self._pipeline = None
        super().close()

    def _start(self, position: int) -> Any:
        self._forget()
        self._running.clear()
        self._fed = self._next = position
        return define_graph(
            self._feed,
            batch_size=self.plan.batch_size,
            threads=self.settings.num_threads,
            prefetch=self.settings.prefetch,
            device=self._device,
            crop_size=self.plan.geometry.crop_size,
            fill=self.plan.fill,
            encoded=self._encoded,
            slicing=self._slicing,
            decoder=self._decoder_options(),
            affinity=self.settings.affinity,
        )

    def _decoder_options(self) -> dict[str, Any]:
        """Return what the GPU's decoder is told: hints, and to see colours as the CPU's does."""
        if self._device.type != "cuda":
            return {}
        options: dict[str, Any] = {"hw_decoder_load": self.settings.hw_decoder_load}
        options["jpeg_fancy_upsampling"] = True
        if self.settings.preallocate and self.plan.samples:
            heights, widths = zip(*(sample.size for sample in self.plan.samples), strict=True)
            options |= {"preallocate_height_hint": max(heights)}
            options |= {"preallocate_width_hint": max(widths)}
        return options

    def _feed(self) -> tuple[Any, ...]:
        """Return the inputs of the next iteration; DALI calls this while it runs ahead."""
        crops, payloads = self._collect(self._fed)
        self._fed += self._stride
        # The graph reads this memory in place: keep it until the batch has come out.
        self._running.append((crops, payloads))
        numbers = np.array([self._numbers(window) for window in crops.request.windows])
        columns = np.split(numbers, 6, axis=1)
        types = (np.float32, np.float32, np.float32, np.int32, np.int32, np.int32)
        inputs = [column.astype(kind) for column, kind in zip(columns, types, strict=True)]
        return payloads, *(inputs if self._slicing else inputs[:4])

    def _payload(
        self, sample: Sample, window: Window, canvas: Any, row: int, position: int
    ) -> np.ndarray:
        if self._encoded:
            return np.frombuffer(sample.read(sample.extension), np.uint8)
        image = self._image(sample, position)
        if self._partial:
            top, left, bottom, right = window.needed
            image = image[top:bottom, left:right]
        return np.ascontiguousarray(image)

    def _numbers(self, window: Window) -> tuple[float, ...]:
        """Return six pairs: size, start and end of the resampled part; start of the padded crop;
        start and size of the decoded part.
        """
        first_row, first_column, last_row, last_column = window.region
        if window.flip:
            first_column, last_column = last_column, first_column
        top, left, bottom, right = window.needed
        down, along = (top, left) if self._partial else (0, 0)
        pad_top, pad_left, _, _ = window.shown
        return (
            *window.shown_size,
            *(first_row - down, first_column - along, last_row - down, last_column - along),
            *(-pad_top, -pad_left),
            *(top, left, bottom - top, right - left),
        )

    def _recover(self, error: RuntimeError) -> None:
        """Find the samples that broke the graph by decoding those that were in it, by Pillow and,
        as that forgives more, by DALI one by one.

        Raises ValueError where one is to stop the run, RuntimeError where there is none. Else the
        graph, which a failure ends, is to be started anew without them.
        """
        self._pipeline = None
        samples = [s for crops, _ in self._running for s in crops.request.samples]
        self._running.clear()
        if not self._skip_undecodable(samples, Sample.read_image) and not (
            self._encoded and self._skip_undecodable(samples, self._decode_alone)
        ):
            raise RuntimeError(f"{_reason_of(error)}: use --loader.loader portable") from error

    def _skip_undecodable(self, samples: list[Sample], decode: Callable[[Sample], Any]) -> bool:
        """Skip the samples that cannot be decoded; tell whether there was one."""
        found = False
        for sample in samples:
            try:
                decode(sample)
            except (*DAMAGED, RuntimeError) as reason:
                self._skip(sample, _reason_of(reason))
                found = True
        return found

    def _decode_alone(self, sample: Sample) -> None:
        data = np.frombuffer(sample.read(sample.extension), np.uint8)
        decode_alone(data, self._device, self._decoder_options())


def taken(images: Any, device: torch.device) -> torch.Tensor:
    """Return what a graph has made, (N, H, W, 3) uint8, as a tensor of torch's.

    On a GPU it is copied, in the order of torch's stream: DALI takes memory back that it lent by
    synchronising the whole device, which holds steps up and which no CUDA graph survives while it
    is captured.
    """
    if device.type != "cuda":
        return torch.from_dlpack(images)
    from nvidia.dali.plugin.pytorch import feed_ndarray

    crops = torch.empty(images.shape(), dtype=torch.uint8, device=device)
    return feed_ndarray(images, crops, cuda_stream=torch.cuda.current_stream(device))


def _reason_of(error: Exception) -> Exception:
    """Return an error of DALI in one line; it wraps the reason into its traceback."""
    if not isinstance(error, RuntimeError):
        return error
    reason = str(error).split("encountered:")[-1].strip().split("\n")[0]
    return ValueError(f"DALI failed ({reason})")


def decode_alone(data: np.ndarray, device: torch.device, options: Mapping[str, Any]) -> None:
    """Decode one encoded image by DALI; RuntimeError where it cannot be."""
    from nvidia.dali import fn, pipeline_def

    on_gpu = device.type == "cuda"

    @pipeline_def(batch_size=1, num_threads=1, device_id=_number(device))
    def graph() -> Any:
        encoded = fn.external_source(source=lambda: [data], num_outputs=None)
        decoder = {"device": "mixed" if on_gpu else "cpu", "adjust_orientation": False, **options}
        return fn.decoders.image(encoded, **decoder)

    graph().run()


def _number(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def define_graph(
    source: Any,
    *,
    batch_size: int,
    threads: int,
    prefetch: int,
    device: torch.device,
    crop_size: tuple[int, int],
    fill: tuple[int, int, int],
    encoded: bool,
    slicing: bool,
    decoder: Mapping[str, Any] = MappingProxyType({}),
    affinity: bool = False,
) -> Any:
    """Define the graph: a DALI pipeline with one output, (N, H, W, 3) uint8, built when it runs.

    source: called per batch, returns the images (encoded bytes, or arrays (h, w, 3)) and, for each
    sample, pairs of numbers: size, start and end of the part to resample; start of the padded crop;
    where `slicing` decodes a part only, its start and size. decoder: options of the decoder of
    whole images. affinity: let DALI keep its threads on cores of their own.
    """
    from nvidia.dali import fn, pipeline_def, types

    on_gpu = device.type == "cuda"
    where = "gpu" if on_gpu else "cpu"
    kinds = [types.FLOAT] * 3 + [types.INT32] * (3 if slicing else 1)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=threads,
        device_id=_number(device),
        prefetch_queue_depth=prefetch,
        exec_dynamic=True,
        set_affinity=affinity,
    )
    def graph() -> Any:
        data, size, first, last, pad, *part = fn.external_source(
            source=source,
            num_outputs=1 + len(kinds),
            batch=True,
            no_copy=True,
            dtype=[types.UINT8, *kinds],
            ndim=[1 if encoded else 3, *(1 for _ in kinds)],
            layout=["" if encoded else "HWC", *("" for _ in kinds)],
        )
        if not encoded:
            image = data.gpu() if on_gpu else data
        elif slicing:
            image = fn.decoders.image_slice(
                data, start=part[0], shape=part[1], axes=(0, 1), adjust_orientation=False
            )
        else:
            image = fn.decoders.image(
                data, device="mixed" if on_gpu else "cpu", adjust_orientation=False, **decoder
            )
        image = fn.resize(
            image,
            device=where,
            size=size,
            roi_start=first,
            roi_end=last,
            interp_type=types.INTERP_LINEAR,
            antialias=True,
        )
        return fn.slice(
            image,
            device=where,
            start=pad,
            shape=crop_size,
            axes=(0, 1),
            out_of_bounds_policy="pad",
            fill_values=list(fill),
        )

    return graph()
