"""The machine a bench runs on: what it is, whether it is large enough, and what else was using it."""

from __future__ import annotations

import os
import platform
import resource
from importlib.metadata import version
from pathlib import Path

import psutil

from consumer.errors import Fatal
from consumer.stack.kafka import KAFKA_VERSION

_LEAST_CORES = 2
_LEAST_MEMORY_GB = 4.0
_LEAST_DISK_GB = 12.0
_LOOK_SECONDS = 2.0
BUSY_SHARE = 0.15
"""Of all cores: more than this taken by other work spoils a figure."""
_LIBRARIES = ("confluent-kafka", "pyarrow", "pyruhvro", "numpy", "scikit-learn", "clickhouse-connect", "chdb")


def describe() -> dict[str, str | int | float]:
    """Cores, memory and versions, as a report keeps them."""
    return {
        "cores": os.cpu_count() or 1,
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        **{name: version(name) for name in _LIBRARIES},
    }


def refuse_unfit(folder: Path, *, busy_too: bool) -> None:
    """Raises Fatal that says what a bench needs and does not find: cores, memory, disk in `folder`, or a machine that
    is not `busy` with other work.
    """
    memory = psutil.virtual_memory().available / 1e9
    disk = psutil.disk_usage(str(folder)).free / 1e9
    faults = []
    if (os.cpu_count() or 1) < _LEAST_CORES:
        faults.append(f"it has {os.cpu_count()} core; a broker and a service need {_LEAST_CORES}")
    if memory < _LEAST_MEMORY_GB:
        faults.append(f"it has {memory:.1f} GB of memory to spare; {_LEAST_MEMORY_GB:.0f} are needed")
    if disk < _LEAST_DISK_GB:
        faults.append(f"{folder} has {disk:.1f} GB to spare; {_LEAST_DISK_GB:.0f} are needed (TMPDIR moves it)")
    if faults:
        raise Fatal("this machine is too small to measure on: " + "; ".join(faults))
    busy = psutil.cpu_percent(_LOOK_SECONDS) / 100
    if busy > BUSY_SHARE and not busy_too:
        raise Fatal(
            f"this machine is busy: other work takes {busy:.0%} of its cores, and figures would mean little. "
            "Wait until it is done, or measure all the same with --busy; the report then says so"
        )


class OtherWork:
    """CPU that neither this process nor its children used, since this was made."""

    def __init__(self) -> None:
        self._all, self._ours, self._idle = self._now()

    def share(self) -> float:
        """Of all cores' time; 0.0 on a quiet machine."""
        everything, ours, idle = self._now()
        whole = everything - self._all
        used = whole - (idle - self._idle) - (ours - self._ours)
        return max(0.0, used / whole) if whole else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        me = psutil.Process()
        ours = sum(_cpu(process) for process in [me, *me.children(recursive=True)])
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(times[:8]), ours + ended.ru_utime + ended.ru_stime, times.idle + getattr(times, "iowait", 0.0)


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it ended just now
        return 0.0
    return float(times.user + times.system)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
