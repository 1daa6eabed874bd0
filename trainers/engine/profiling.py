"""Profile some steps of a training run: `warpseg train RECIPE ... --profile 3`.

RUN/profile/trace-R.json.gz     Chrome trace of rank R, with the stages' phases as ranges
RUN/profile/operators-R.txt     operations by the time and the memory they take
RUN/profile/memory-R.pickle     snapshot of the GPU's allocator, for pytorch.org/memory_viz
"""

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ...shards.archive import write_text

WARM_STEPS = 5
"""Steps before the first that is profiled: compiling and choosing algorithms are over by then."""
_ROWS = 40

log = logging.getLogger("warpseg")


class StepProfiler:
    """Profiles `steps` steps of a run once it is warm. Tell it the end of every step."""

    def __init__(self, folder: Path, steps: int, device: torch.device, rank: int = 0) -> None:
        if steps < 1:
            raise ValueError(f"--profile takes a number of steps, at least 1; got {steps}")
        self.folder, self.steps, self.device, self.rank = folder, steps, device, rank
        self.seen = 0
        self.profiler: profile | None = None

    def step(self) -> None:
        """Note the end of a step: begin, go on, or write what was found."""
        self.seen += 1
        if self.seen == WARM_STEPS:
            self._begin()
        elif self.seen == WARM_STEPS + self.steps:
            self.close()

    def close(self) -> None:
        """Write what was found so far, if anything; later steps are not profiled."""
        if self.profiler is None:
            if self.seen < WARM_STEPS:
                log.warning(f"nothing was profiled: the first {WARM_STEPS} steps only warm up")
            return
        self.profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profiler.export_chrome_trace(str(self.folder / f"trace-{self.rank}.json.gz"))
        averages = self.profiler.key_averages()
        on_gpu = self.device.type == "cuda"
        orders = ["self_device_time_total", "self_device_memory_usage"]
        if not on_gpu:
            orders = ["self_cpu_time_total", "self_cpu_memory_usage"]
        tables = [averages.table(sort_by=order, row_limit=_ROWS) for order in orders]
        write_text(self.folder / f"operators-{self.rank}.txt", "\n\n".join(tables) + "\n")
        if on_gpu:
            torch.cuda.memory._dump_snapshot(str(self.folder / f"memory-{self.rank}.pickle"))
            torch.cuda.memory._record_memory_history(enabled=None)
        self.profiler = None
        self.seen = WARM_STEPS + self.steps
        log.info(f"profile: {self.folder}")

    def _begin(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.memory._record_memory_history()
        self.profiler = profile(
            activities=activities, profile_memory=True, record_shapes=True, acc_events=True
        )
        self.profiler.start()
