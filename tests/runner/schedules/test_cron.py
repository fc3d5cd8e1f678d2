"""Schedules as users write them, and as KFP reads them."""

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.core.errors import UserError
from runner.schedules.cron import Schedule, parse, parse_kfp

TUESDAY_NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _next(schedule: Schedule, times: int = 3) -> list[str]:
    return [f"{time:%m-%d %H:%M:%S}" for time in islice(schedule.times(TUESDAY_NOON), times)]


@pytest.mark.parametrize(
    ("text", "cron", "times"),
    [
        ("0 2 * * *", "0 0 2 * * *", ["11-25 02:00:00", "11-26 02:00:00", "11-27 02:00:00"]),
        ("*/20 12 * * *", "0 */20 12 * * *", ["11-24 12:20:00", "11-24 12:40:00", "11-25 12:00:00"]),
        ("@hourly", "0 0 * * * *", ["11-24 13:00:00", "11-24 14:00:00", "11-24 15:00:00"]),
        ("@Daily", "0 0 0 * * *", ["11-25 00:00:00", "11-26 00:00:00", "11-27 00:00:00"]),
        ("30 4 * * mon-fri", "0 30 4 * * mon-fri", ["11-25 04:30:00", "11-26 04:30:00", "11-27 04:30:00"]),
        ("0 0 31 * *", "0 0 0 31 * *", ["12-31 00:00:00", "01-31 00:00:00", "03-31 00:00:00"]),
        ("0 0 29 feb *", "0 0 0 29 feb *", ["02-29 00:00:00"] * 3),
        # Day of month or day of week, if both are given.
        ("0 0 26 * wed", "0 0 0 26 * wed", ["11-25 00:00:00", "11-26 00:00:00", "12-02 00:00:00"]),
    ],
)
def test_crontab_gets_seconds(text: str, cron: str, times: list[str]) -> None:
    assert parse(text) == Schedule(cron=cron)
    assert _next(parse(text)) == times


@pytest.mark.parametrize(
    ("field", "of_kfp"), [("7", "0"), ("5-7", "0,5,6"), ("1,7", "0,1"), ("1/2", "0,1,3,5"), ("*/2", "*/2"), ("*", "*")]
)
def test_sunday_is_zero_in_kfp(field: str, of_kfp: str) -> None:
    assert parse(f"0 2 * * {field}") == Schedule(cron=f"0 0 2 * * {of_kfp}")


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [("every 6h", 21600, "every 6h"), ("every 90m", 5400, "every 90m"), ("EVERY 2 d", 172800, "every 2d")],
)
def test_interval_in_seconds(text: str, seconds: int, shown: str) -> None:
    assert parse(text) == Schedule(seconds=seconds)
    assert str(parse(text)) == shown
    assert _next(parse("every 6h")) == ["11-24 18:00:00", "11-25 00:00:00", "11-25 06:00:00"]


def test_time_zone_has_summer_time() -> None:
    march = datetime(2026, 3, 27, 12, tzinfo=UTC)
    times = list(islice(parse("30 6 * * *").times(march, ZoneInfo("Europe/Berlin")), 3))
    assert [f"{time:%d %H:%M %Z}" for time in times] == ["28 05:30 UTC", "29 04:30 UTC", "30 04:30 UTC"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is not a schedule; give a crontab's five fields such as '0 2 * * *', @daily, or 'every 6h'"),
        ("nightly", "is not a schedule"),
        ("@reboot", "is not a schedule"),
        ("every 0h", "is not a schedule"),
        ("every 6 weeks", "3 fields"),
        ("0 2 * *", "has 4 fields; give five: minute, hour, day-of-month, month, day-of-week"),
        ("0 0 2 * * *", "has 6 fields; give five"),
        ("0 0 2 * * * 2026", "has 7 fields; give five"),
        ("60 2 * * *", "minute '60' is not accepted; give 0-59"),
        ("0 24 * * *", "hour '24' is not accepted; give 0-23"),
        ("0 2 0 * *", "day-of-month '0' is not accepted"),
        ("0 2 * 13 *", "month '13' is not accepted; give 1-12 or jan-dec"),
        ("0 2 * foo *", "month 'foo' is not accepted"),
        ("0 2 * * 8", "day-of-week '8' is not accepted; give 0-7 or sun-sat"),
        ("0 2 * * fri-sun", "day-of-week 'fri-sun' is not accepted"),
        ("0 5-2 * * *", "hour '5-2' is not accepted"),
        ("*/0 * * * *", "minute '*/0' is not accepted"),
        ("-1 2 * * *", "minute '-1' is not accepted"),
        ("0 2 31 2 *", "day-of-month '31' is not accepted; give 1-31, of a month that has such a day"),
        ("0 2 31 4,jun *", "day-of-month '31' is not accepted"),
        ("0 2 L * *", "day-of-month 'L' is not accepted"),
        ("0 2 ? * *", "day-of-month '?' is not accepted"),
        ("0 2 * * 5#2", "day-of-week '5#2' is not accepted"),
        ("every 9999d", "is longer than a year"),
    ],
)
def test_malformed_schedule_is_refused_with_a_remedy(text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert str(error.value).startswith(repr(text))
    assert expected in str(error.value)


def test_cron_in_kfp_is_read_as_kfp_reads_it() -> None:
    assert parse_kfp("0 30 2 ? * MON-FRI") == Schedule(cron="0 30 2 * * MON-FRI")
    assert parse_kfp("@daily") == parse("@daily")
    assert parse_kfp("@every 1h30m") == Schedule(seconds=5400)


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 2 * * *", "has five fields: KFP reads the first as seconds; give '0 0 2 * * *'"),
        ("61 0 2 * * *", "second '61' is not accepted"),
        ("2", "is not understood here; give six fields"),
    ],
)
def test_cron_that_kfp_misreads_is_refused(cron: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse_kfp(cron)
    assert expected in str(error.value)


@settings(deadline=None)
@given(st.text(alphabet="0123456789*/,-LW#? @jansuevryhmd", max_size=25))
def test_accepted_schedules_are_accepted_by_kfp(text: str) -> None:
    try:
        schedule = parse(text)
    except UserError:
        return
    assert schedule.seconds or parse_kfp(schedule.cron) == schedule
    assert len(_next(schedule)) == 3
