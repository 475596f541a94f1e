"""What a command that sends a file tells of the lines that it could not send, and of a file that breaks off."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from consumer.errors import Fatal
from consumer.services.lines import BadLine
from consumer.services.sender import Sender

_SHOWN_REASONS = 5


@dataclass
class BadLines:
    """Counts them, and remembers the first few; kept small however many there are."""

    errors: Counter[str] = field(default_factory=Counter)
    first: list[BadLine] = field(default_factory=list)

    def refuse(self, sender: Sender, lines: list[BadLine]) -> None:
        """Send these to the dead letters."""
        for line in lines:
            sender.refuse(line)
            self.errors[line.reason.error] += 1
            if len(self.first) < _SHOWN_REASONS:
                self.first.append(line)

    def tell(self, what: str) -> None:
        """Say on stderr how many lines are no `what`, and why the first are none; nothing when there are none."""
        count = self.errors.total()
        if not count:
            return
        click.echo(f"{count:,} lines are no {what} and went to the dead-letter topic:", err=True)
        for line in self.first:
            click.echo(f"  line {line.number}: {line.reason} ({line.reason.error})", err=True)
        if count > len(self.first):
            click.echo(f"  … and {count - len(self.first):,} more", err=True)


@contextmanager
def reading(file: object, sender: Sender, what: str) -> Iterator[None]:
    """While `file` is read and sent: when it cannot be read to its end, what was sent is settled and told."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        sender.flush()
        raise Fatal(f"{file} cannot be read to its end ({error}); {sender.sent:,} {what} were sent") from error
