"""The lines of a step's log: which are its own, when each was printed, and by which node of a training."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from components.shared.core.document import Part, Time
from components.shared.core.log import read_event
from components.shared.core.printable import told
from runner.cluster.watch.failure import OwnLines

TIMED = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)) (?P<text>.*)", re.DOTALL)


class LogLine(Part):
    """A line that a step printed: when, if that is known, and on which node of a distributed training."""

    time: Time | None
    rank: int | None
    text: str

    def shown(self) -> str:
        """Return the line for people."""
        time = f"{self.time[:19]}Z  " if self.time else ""
        return time + ("" if self.rank is None else f"rank {self.rank}  ") + self.text


def of_first_node(line: LogLine) -> LogLine:
    """Return a line of step train-distributed with its rank, if it repeats one of the training's first node."""
    return line.model_copy(update={"rank": 0}) if line.text.startswith("[train] ") else line


@dataclass
class LogReader:
    """Reads the lines of a log, as they come: those of the step itself, or all."""

    takes_all: bool
    timed: bool  # whether each line begins with its time
    own: OwnLines = field(default_factory=OwnLines)

    def read(self, lines: Iterable[str], rank: int | None = None) -> Iterator[LogLine]:
        """Yield the lines that are wanted."""
        for line in lines:
            found = TIMED.fullmatch(line) if self.timed else None
            time, text = (found["time"], found["text"]) if found else (None, line)
            if self.takes_all or (self.own.has(text) and read_event(text) is None):
                yield LogLine(time=time, rank=rank, text=told(text.rstrip()))
