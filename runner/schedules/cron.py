"""Schedules: a crontab line, `@daily` or `every 6h`, translated to what KFP's scheduler reads.

KFP's cron has six fields, seconds first. It accepts a crontab's five as well, but misreads them: `0 2 * * *` runs every
hour. The fields have their meaning in crontab, but Sunday is 0, never 7 (KFP builds on github.com/robfig/cron v1.2.0).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count

from cronsim import CronSim, CronSimError

from components.shared.core.errors import UserError

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, of a month that has such a day",
    "month": "1-12 or jan-dec",
    "day-of-week": "0-7 or sun-sat",
}
FORMS = "a crontab's five fields such as '0 2 * * *', @daily, or 'every 6h'"
# A star must stand alone. KFP's scheduler does not know `L`, `#` and `W` of other schedulers.
FIELD = re.compile(r"\*(/\d+)?|{0}(,{0})*".format(r"(\d+|[a-z]{3})(-(\d+|[a-z]{3}))?(/\d+)?"), re.IGNORECASE)
INTERVAL = re.compile(r"every\s+([1-9]\d{0,5})\s*([mhd])", re.IGNORECASE)
GO_INTERVAL = re.compile(r"@every (\d+[hms])+")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # in seconds
YEAR = 366 * 86400  # in seconds


@dataclass(frozen=True)
class Schedule:
    """Recurring times: by `cron`, in KFP's six fields, or every `seconds`."""

    cron: str = ""
    seconds: int = 0

    def __str__(self) -> str:
        """Return the text that `parse` reads as this schedule, or KFP's cron if there is none."""
        if self.cron:
            five = self.cron.removeprefix("0 ")
            return five if _means(five, self) else self.cron
        unit, seconds = next(pair for pair in reversed(UNITS.items()) if self.seconds % pair[1] == 0)
        return f"every {self.seconds // seconds}{unit}"

    def times(self, start: datetime, zone: tzinfo = UTC) -> Iterator[datetime]:
        """Yield the times after `start`, in UTC: cron in time zone `zone`, an interval from `start`."""
        start = start.astimezone(UTC)
        if self.cron:
            return (time.astimezone(UTC) for time in CronSim(self.cron, start.astimezone(zone)))
        return (start + number * timedelta(seconds=self.seconds) for number in count(1))

    def after(self, now: datetime, last: datetime, zone: tzinfo = UTC) -> datetime:
        """Return the first time after `now`, in UTC: cron in time zone `zone`, an interval from `last`."""
        if self.cron:
            return next(self.times(now, zone))
        interval = timedelta(seconds=self.seconds)
        return last + ((now - last) // interval + 1) * interval


def parse(text: str) -> Schedule:
    """Return the schedule that a user writes. Raises UserError if it is malformed or never occurs."""
    if every := INTERVAL.fullmatch(text.strip()):
        seconds = int(every[1]) * UNITS[every[2].lower()]
        if seconds > YEAR:
            raise UserError(f"{text!r} is longer than a year", "give a shorter interval")
        return Schedule(seconds=seconds)
    line = NICKNAMES.get(text.strip().lower(), text)
    fields = line.split()
    if len(fields) < 3 or line.startswith("@"):
        raise UserError(f"{text!r} is not a schedule", f"give {FORMS}")
    if len(fields) != 5:
        names = ", ".join(list(FIELDS)[1:])
        raise UserError(f"{text!r} has {len(fields)} fields", f"give five: {names} (KFP's seconds are added)")
    return _six_fields(text, ["0", *fields])


def parse_kfp(cron: str) -> Schedule:
    """Return the schedule of a cron in KFP. Raises UserError if KFP misreads it, or it is not understood here."""
    if GO_INTERVAL.fullmatch(cron):
        return Schedule(seconds=sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", cron)))
    fields = NICKNAMES.get(cron, cron).replace("?", "*").split()
    if cron in NICKNAMES:
        fields.insert(0, "0")
    if len(fields) == 5:
        raise UserError(f"cron {cron!r} has five fields: KFP reads the first as seconds", f"give '0 {cron}'")
    if len(fields) != 6:
        raise UserError(f"cron {cron!r} is not understood here", "give six fields, seconds first")
    return _six_fields(cron, fields)


def _means(text: str, schedule: Schedule) -> bool:
    try:
        return parse(text) == schedule
    except UserError:
        return False


def _six_fields(text: str, fields: list[str]) -> Schedule:
    """Return the schedule of six fields after checking each; `text` is what an error shows."""
    given = dict(zip(FIELDS, fields, strict=True))
    for name, field in given.items():
        if not FIELD.fullmatch(field):
            raise _refused(text, name, field)
    try:
        days = CronSim(" ".join(fields), datetime.now(UTC)).weekdays
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        raise _refused(text, name, given[name]) from None
    if 7 in days and not fields[5].startswith("*"):
        fields[5] = ",".join(map(str, sorted({day % 7 for day in days if isinstance(day, int)})))
    return Schedule(cron=" ".join(fields))


def _refused(text: str, name: str, field: str) -> UserError:
    return UserError(f"{text!r}: {name} {field!r} is not accepted", f"give {FIELDS[name]}")
