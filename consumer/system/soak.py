"""A long steady run of one score and one sink process: does anything grow?

Memory and file descriptors of both are sampled every few seconds, and what each has yet to read. At the end the ledger
is proved, as after a fault.

A process is flat when, after a warm-up, neither of two slopes of its memory shows a growth that matters: the line of
least squares, and the median of the last third against the median of the first (which one burst cannot tilt). What
matters is `LEAK_MB_PER_HOUR`; descriptors may not grow by one in an hour.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from consumer.clock import Deadline
from consumer.errors import Fatal, KafkaUnavailable
from consumer.stack.local import LocalStack
from consumer.system.bench import machine
from consumer.system.faults.trial import Ground, Outcome, Say, Trial, trial
from consumer.system.supervisor import ServiceProcess
from consumer.watch.lag import LagReader

SAMPLE_SECONDS = 5.0
WARM_UP_SHARE = 0.2
"""Of the run: caches fill, the allocator finds its size."""
LEAK_MB_PER_HOUR = 20.0
"""A service that grows faster would double within a day."""
DESCRIPTORS_PER_HOUR = 1.0
LAG_GROWTH = 1.5
_LEAST_FREE_GB = 2.0
_BYTES_A_RECORD = 700
"""Of disk, for its event, its shadow event and its row, as measured, with some room."""
_START_SECONDS = 120.0
_TELL_EVERY_SECONDS = 60.0
_MINUTE, _HOUR = 60.0, 3600.0

Numbers = npt.NDArray[np.float64]


@dataclass
class Samples:
    """What was seen of one process, a value each time."""

    name: str
    at: list[float] = field(default_factory=list)
    """Seconds since the run began."""
    rss_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    lag: list[int] = field(default_factory=list)
    lag_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """What the samples of one process say, without those of its warm-up."""

    name: str
    samples: int
    rss_mb: float
    """At the end."""
    rss_most_mb: float
    rss_mb_per_hour: float
    """By least squares."""
    rss_mb_per_hour_by_medians: float
    """From the median of the first third to that of the last."""
    descriptors: int
    descriptors_per_hour: float
    lag_p50: float
    lag_p99: float
    lag_most: int
    lag_seconds_p99: float
    lag_grew: bool
    """Whether the median of the last third is above `LAG_GROWTH` times the 99th percentile of the first."""

    @property
    def flat(self) -> bool:
        grows = min(self.rss_mb_per_hour, self.rss_mb_per_hour_by_medians) > LEAK_MB_PER_HOUR
        return not (grows or self.descriptors_per_hour >= DESCRIPTORS_PER_HOUR or self.lag_grew)


@dataclass(frozen=True)
class SoakReport:
    machine: dict[str, str | int | float]
    other_work_share: float
    minutes: float
    rate: float
    figures: list[Figures]
    outcome: Outcome

    @property
    def flat(self) -> bool:
        return all(each.flat for each in self.figures)

    @property
    def good(self) -> bool:
        return self.flat and self.outcome.holds

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"flat": self.flat, "holds": self.outcome.holds}

    def lines(self) -> Iterator[str]:
        """Markdown, as docs/soak.md keeps it."""
        proof = self.outcome.proof
        yield "# Soak"
        yield ""
        yield (
            f"`bnpl-shadow soak --minutes {self.minutes:g} --rate {self.rate:g}`: one score and one sink process, "
            f"{proof.acknowledged:,} transactions at {self.rate:,.0f} a second, sampled every {SAMPLE_SECONDS:.0f} s; "
            f"the first {WARM_UP_SHARE:.0%} of the run is warm-up and not counted."
        )
        yield ""
        yield "| | " + " | ".join(each.name for each in self.figures) + " |"
        yield "|---" * (len(self.figures) + 1) + "|"
        for label, of in _ROWS:
            yield f"| {label} | " + " | ".join(of(each) for each in self.figures) + " |"
        yield ""
        yield (
            f"Flat means: memory does not grow by more than {LEAK_MB_PER_HOUR:.0f} MB an hour by both slopes (least "
            "squares, and the median of the last third against that of the first), descriptors do not grow by one an "
            f"hour, and the median lag of the last third is not above {LAG_GROWTH} times the 99th percentile of the "
            "first."
        )
        yield ""
        yield (
            f"The ledger {'holds' if self.outcome.holds else 'DOES NOT HOLD'}: {proof.acknowledged:,} acknowledged = "
            f"{proof.scored:,} scored + {proof.dead_lettered:,} dead letters; {proof.stored:,} stored; "
            f"lost {proof.lost}, twice {proof.twice}, altered {proof.altered}, unknown {proof.unknown}."
        )
        yield ""
        versions = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        yield f"On: {versions}. Other work took {self.other_work_share:.0%} of all cores meanwhile."


_ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("verdict", lambda each: "flat" if each.flat else "NOT FLAT"),
    ("memory at the end", lambda each: f"{each.rss_mb:,.0f} MB"),
    ("memory at the most", lambda each: f"{each.rss_most_mb:,.0f} MB"),
    ("memory slope, least squares", lambda each: f"{each.rss_mb_per_hour:+.1f} MB/h"),
    ("memory slope, medians of thirds", lambda each: f"{each.rss_mb_per_hour_by_medians:+.1f} MB/h"),
    ("file descriptors", lambda each: f"{each.descriptors}"),
    ("descriptors slope", lambda each: f"{each.descriptors_per_hour:+.2f} an hour"),
    ("lag p50", lambda each: f"{each.lag_p50:,.0f} events"),
    ("lag p99", lambda each: f"{each.lag_p99:,.0f} events, {each.lag_seconds_p99:.1f} s"),
    ("lag at the most", lambda each: f"{each.lag_most:,} events"),
    ("samples", lambda each: f"{each.samples}"),
)


def figures_of(samples: Samples) -> Figures:
    """Raises Fatal when the run was too short to say anything."""
    warm = [at >= samples.at[-1] * WARM_UP_SHARE for at in samples.at] if samples.at else []
    if sum(warm) < 6:
        raise Fatal(f"{sum(warm)} samples of {samples.name} after the warm-up say nothing: let it run for longer")
    at, rss, descriptors, lag, seconds = (
        np.array(column, float)[warm]
        for column in (samples.at, samples.rss_mb, samples.descriptors, samples.lag, samples.lag_seconds)
    )
    third = len(at) // 3
    return Figures(
        name=samples.name,
        samples=len(at),
        rss_mb=float(rss[-1]),
        rss_most_mb=float(rss.max()),
        rss_mb_per_hour=_slope(at, rss),
        rss_mb_per_hour_by_medians=_slope_by_medians(at, rss, third),
        descriptors=int(descriptors[-1]),
        descriptors_per_hour=_slope_by_medians(at, descriptors, third),
        lag_p50=float(np.percentile(lag, 50)),
        lag_p99=float(np.percentile(lag, 99)),
        lag_most=int(lag.max()),
        lag_seconds_p99=float(np.percentile(seconds, 99)),
        lag_grew=bool(np.median(lag[-third:]) > LAG_GROWTH * np.percentile(lag[:third], 99)),
    )


def _slope(at: Numbers, values: Numbers) -> float:
    """By least squares, an hour."""
    return float(np.polyfit(at / _HOUR, values, 1)[0])


def _slope_by_medians(at: Numbers, values: Numbers, third: int) -> float:
    rise = np.median(values[-third:]) - np.median(values[:third])
    hours = (np.median(at[-third:]) - np.median(at[:third])) / _HOUR
    return float(rise / hours)


def run_soak(minutes: float, rate: float, say: Say, *, busy_too: bool) -> SoakReport:
    """Run it on a stack of its own. Raises Fatal for a machine that is too small or, unless `busy_too`, busy; and when
    the disk fills: all events stay in their topics until they are proved.
    """
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="bnpl-soak-")))
        machine.refuse_unfit(folder, busy_too=busy_too)
        _refuse_small_disk(folder, minutes * _MINUTE * rate)
        others = machine.OtherWork()
        addresses = ending.enter_context(LocalStack(folder, 0, 0)).start(say)
        ground = Ground(addresses.kafka, addresses.clickhouse, folder)
        samples, outcome = soak(ground, minutes, rate, say)
        figures = [figures_of(each) for each in samples]
        return SoakReport(machine.describe(), others.share(), minutes, rate, figures, outcome)


def soak(ground: Ground, minutes: float, rate: float, say: Say) -> tuple[list[Samples], Outcome]:
    """The run itself, on servers that are there."""
    compressed = ground.folder / "soak.properties"
    compressed.write_text("compression.type=lz4\n")  # shadow events compress to a third
    settings = ground.settings("soak", kafka_config_file=compressed)
    with trial(settings, rate, say) as running:
        score, sink = running.service("score"), running.service("sink")
        for service in (score, sink):
            service.start()
        running.wait_flowing()
        with (
            LagReader(settings, settings.score_group, [settings.topic_transactions]) as score_lag,
            LagReader(settings, settings.sink_group, [settings.topic_shadow_scores]) as sink_lag,
        ):
            watched = [(score, score_lag, Samples("score")), (sink, sink_lag, Samples("sink"))]
            _sample(running, watched, minutes * _MINUTE, say)
    return [samples for *_, samples in watched], running.outcome("soak")


def _sample(running: Trial, watched: list[tuple[ServiceProcess, LagReader, Samples]], seconds: float, say: Say) -> None:
    began = told = time.monotonic()
    deadline = Deadline.after(seconds)
    while not deadline.passed:
        running.rest(min(SAMPLE_SECONDS, deadline.remaining))
        _refuse_full_disk(running.settings.state_dir)
        for service, lag, samples in watched:
            _take(service, lag, samples, time.monotonic() - began)
        if time.monotonic() - told >= _TELL_EVERY_SECONDS:
            told = time.monotonic()
            seen = "; ".join(f"{each.name} {each.rss_mb[-1]:.0f} MB, lag {each.lag[-1]:,}" for *_, each in watched)
            say(f"soak: {(told - began) / _MINUTE:.0f} of {seconds / _MINUTE:.0f} minutes; {seen}")


def _take(service: ServiceProcess, lag: LagReader, samples: Samples, at: float) -> None:
    pid = service.pid
    if pid is None:
        raise Fatal(f"{service.name} ended with code {service.exit_code}; its log is {service.log_file}")
    try:
        look = lag.look()
    except KafkaUnavailable:  # one look fewer
        return
    process = psutil.Process(pid)
    samples.at.append(at)
    samples.rss_mb.append(process.memory_info().rss / 2**20)
    samples.descriptors.append(process.num_fds())
    samples.lag.append(look.unread)
    samples.lag_seconds.append(max(each.seconds(look.at) for each in look.partitions))


def _refuse_small_disk(folder: Path, events: float) -> None:
    needed = events * _BYTES_A_RECORD / 1e9 + _LEAST_FREE_GB
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise Fatal(f"{folder} has {free:.1f} GB to spare; this soak needs {needed:.1f} (TMPDIR moves it)")


def _refuse_full_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free / 1e9
    if free < _LEAST_FREE_GB:
        raise Fatal(f"{folder} has {free:.1f} GB left: the soak stops before the disk is full")
