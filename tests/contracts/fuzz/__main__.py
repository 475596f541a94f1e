"""`make fuzz`: the long form, its report, and one payload again."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from random import SystemRandom

import click

from consumer.cli.progress import progress
from fuzz.batches import SIZE, batch
from fuzz.checks import check
from fuzz.run import Report, run

GROWTH_ALLOWED_MB = 100.0
_SHOWN = 20


@click.command()
@click.option("--payloads", default=1_000_000, show_default=True, type=click.IntRange(1), help="How many to check.")
@click.option("--seed", type=int, help="Makes the same payloads again; random when not given, and printed.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1), help="At a time.")
@click.option("--limit", default=120.0, show_default=True, help="Seconds after which a batch of payloads hangs.")
@click.option("--only", type=click.IntRange(0), help="Check only the payload of this number, and show it.")
@click.option("--json", "as_json", is_flag=True, help="The report for programs.")
def main(payloads: int, seed: int | None, processes: int, limit: float, only: int | None, as_json: bool) -> None:
    """Fuzz the way from a message's bytes to columns, by both codecs.

    Values that break one rule of Avro's encoding, values with damaged bytes and framings, and schemas of all kinds:
    both codecs must agree bit for bit, a batch must be its values read alone, nothing impossible may be let in, and
    nothing may crash, hang or leak. Exits 1 on a finding; --seed and --only with its numbers make it again.
    """
    if only is not None:
        if seed is None:
            raise click.UsageError("--only needs the --seed of the run that named the payload")
        sys.exit(_one(seed, only))
    report = Report(SystemRandom().randrange(2**31) if seed is None else seed)
    with progress() as bar:
        task = bar.add_task(f"seed {report.seed}", total=payloads)
        try:
            run(
                report,
                payloads,
                check,
                processes=processes,
                limit_seconds=limit,
                tell=lambda: bar.update(task, completed=report.payloads),
            )
        except KeyboardInterrupt:
            click.echo(f"stopped; this is what {report.payloads:,} of {payloads:,} payloads showed", err=True)
    good = report.payloads == payloads and not report.findings and report.growth_mb <= GROWTH_ALLOWED_MB
    click.echo(json.dumps(document(report)) if as_json else _as_text(report))
    sys.exit(0 if good else 1)


def _one(seed: int, number: int) -> int:
    """The payload's batch as it was, cut to the payload."""
    (single,) = [each for each in batch(seed, number // SIZE).singles() if each.payloads[0].number == number]
    (payload,) = single.payloads
    click.echo(f"payload {number} ({single.family}, {payload.kind}): {(payload.value or b'').hex()}")
    click.echo(f"schema: {single.text or single.schema['name']}")
    outcome = check(single)
    click.echo("\n".join(each.fault for each in outcome.findings) or f"no fault: {', '.join(+outcome.told)}")
    return 1 if outcome.findings else 0


def document(report: Report) -> dict[str, object]:
    told = {name: value for name, value in vars(report).items() if name not in ("memory_mb", "findings")}
    told |= {"findings": [asdict(each) for each in report.findings]}
    return told | {"peak_mb": round(report.peak_mb, 1), "growth_mb_per_million": round(report.growth_mb, 1)}


def _as_text(report: Report) -> str:
    lines = [
        f"seed {report.seed}: {report.payloads:,} payloads in {report.seconds:,.0f} s",
        *_table("written with", report.families),
        *_table("made by", report.kinds),
        *_table("became", report.told),
        f"memory of a process: {report.peak_mb:.0f} MB at most, {report.growth_mb:+.0f} MB a million payloads once warm"
        f" ({GROWTH_ALLOWED_MB:.0f} allowed)",
        f"findings: {len(report.findings)}",
    ]
    for each in report.findings[:_SHOWN]:
        where = f"batch {each.batch}" if each.payload is None else f"payload {each.payload} ({each.kind})"
        lines.append(f"  {where}, {each.family}: {each.fault}\n    {each.value[:200]}\n    {each.schema[:300]}")
    return "\n".join(lines)


def _table(title: str, counts: Mapping[str, int]) -> list[str]:
    return [f"{title}:", *(f"  {name:<20} {count:>9,}" for name, count in Counter(counts).most_common())]


if __name__ == "__main__":
    main()
