"""Verb `schedule`: runs of the pipeline that recur in Kubeflow."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from runner.cluster.api import Version, find_pipeline, find_versions, load_version
from runner.cluster.connection import Connection, connect
from runner.cluster.kube import kube_errors
from runner.cluster.options import add_options
from runner.cluster.rest import ApiError
from runner.cluster.upload import resolve_version
from runner.graphs import add_graph_option
from runner.parameters import parse_parameters
from runner.schedules import recurring
from runner.schedules.audit import audit
from runner.schedules.cron import Schedule, parse, parse_kfp, write
from runner.schedules.recurring import FOLLOWS_LATEST, Recurring

EXAMPLES = """examples:
  python pipeline.py schedule add nightly "0 2 * * *" data=fashion-mnist min_accuracy=0.85
  python pipeline.py schedule add often "every 6h" --follow-latest
  python pipeline.py schedule pause nightly
  python pipeline.py schedule audit
"""
ZONE_PLACE = "pipeline-install-config", "cronScheduleTimezone"  # a ConfigMap of KFP's namespace, and a key
NAMED = {
    "pause": "let no further run start",
    "resume": "let runs start again",
    "remove": "delete it; a run under way goes on",
}


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "schedule",
        help="let the pipeline run again and again in Kubeflow",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_add(actions)
    listing = actions.add_parser("list", help="show the recurring runs of the namespace, and when each runs next")
    add_zone_option(listing)
    listing.set_defaults(act=_list)
    for name, says in NAMED.items():
        action = actions.add_parser(name, help=says)
        action.add_argument("name", metavar="NAME", help="name or id of the recurring run")
        action.set_defaults(act={"pause": _pause, "resume": _resume, "remove": _remove}[name])
    says = "tell what is wrong with them; exit code 1 if anything is"
    auditing = actions.add_parser("audit", help=says, description=says)
    add_zone_option(auditing)
    auditing.set_defaults(act=_audit)
    for action in actions.choices.values():
        add_options(action)
        action.set_defaults(handle=handle)


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Do what the action says, and return the exit code."""
    code: int = arguments.act(arguments, pipeline)
    return code


def add_zone_option(parser: argparse.ArgumentParser) -> None:
    """Add to a verb the option that `find_zone` reads."""
    parser.add_argument(
        "--time-zone", metavar="NAME", help="the zone in which KFP reads cron, instead of what the cluster says or UTC"
    )


def find_zone(connection: Connection, arguments: argparse.Namespace) -> tzinfo:
    """The zone in which KFP reads cron: as given, else as the cluster says where it may be asked, else UTC."""
    name = arguments.time_zone or _zone_of_cluster(connection) or "UTC"
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise UserError(f"{name} is no time zone known here; give --time-zone NAME such as Europe/Berlin") from None


def _zone_of_cluster(connection: Connection) -> str | None:
    if not connection.kube:
        return None
    (place, key), namespace = ZONE_PLACE, connection.kfp_namespace
    try:
        with kube_errors(f"read ConfigMap {place} in namespace {namespace}"):
            found = connection.kube.read_namespaced_config_map(place, namespace, _request_timeout=30)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return None
    return (found.data or {}).get(key)


def show_times(schedule: Schedule, zone: tzinfo) -> None:
    """Print the next three times, in UTC and as the clock here shows them."""
    for time in islice(schedule.times(datetime.now(UTC), zone), 3):
        print(f"  next {time:%Y-%m-%d %H:%M} UTC, here {time.astimezone():%Y-%m-%d %H:%M %Z}")


def _add_add(actions: Any) -> None:
    add = actions.add_parser("add", help="make a recurring run")
    add.add_argument("name", metavar="NAME", help="its name, not taken yet")
    add.add_argument(
        "when",
        metavar="WHEN",
        help="a crontab's five fields, in UTC unless KFP is set to another zone; @daily; or 'every 6h'",
    )
    add.add_argument("parameters", nargs="*", metavar="name=value", help="parameters of the pipeline")
    version = add.add_mutually_exclusive_group()
    version.add_argument("--version", metavar="NAME", help="pin this uploaded version, not the present code")
    version.add_argument("--follow-latest", action="store_true", help="each run takes the version uploaded last")
    add.add_argument("--catch-up", action="store_true", help="after a pause, run every time that was missed")
    add.add_argument(
        "--max-concurrency",
        type=int,
        choices=range(1, recurring.AT_ONCE + 1),
        default=1,
        metavar="N",
        help=f"runs at the same time, 1 to {recurring.AT_ONCE} (%(default)s)",
    )
    add_graph_option(add)
    add_zone_option(add)
    add.set_defaults(act=_add)


def _add(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    schedule = parse(arguments.when)
    connection = connect(arguments)
    zone = find_zone(connection, arguments)  # a mistake in it is told before anything is made
    for item in recurring.every(connection):
        if item.display_name == arguments.name:
            raise UserError(f"{arguments.name} is taken: {item.recurring_run_id}; choose another name, or remove it")
    version, parameters = _choose(connection, pipeline, arguments)
    wanted = Recurring(
        name=arguments.name,
        schedule=schedule,
        pipeline_id=version.pipeline_id,
        version_id=FOLLOWS_LATEST if arguments.follow_latest else version.version_id,
        parameters=parameters,
        max_concurrency=arguments.max_concurrency,
        catch_up=arguments.catch_up,
    )
    recurring_run_id = recurring.create(connection, wanted)
    follows = "the latest version, now " if arguments.follow_latest else "version "
    print(f"{arguments.name}: {schedule}, {follows}{version.name} of {pipeline.name}")
    show_times(schedule, zone)
    print(connection.ui_link("recurring_run", recurring_run_id))
    return 0


def _choose(
    connection: Connection, pipeline: BaseComponent, arguments: argparse.Namespace
) -> tuple[Version, dict[str, Any]]:
    """The version that will run, and the parameters given, checked against it."""

    def read(chosen: BaseComponent) -> dict[str, Any]:
        return given(chosen, arguments.parameters)

    if not arguments.follow_latest:
        return resolve_version(connection, pipeline, arguments.version, read)
    version = _latest(connection, pipeline.name)
    return version, read(load_version(connection, version))


def given(pipeline: BaseComponent, words: Sequence[str]) -> dict[str, Any]:
    """The parameters that the words set; the others stay the version's own, so that they may follow it."""
    parameters = parse_parameters(pipeline, words)
    return {name: parameters[name] for name in (word.partition("=")[0] for word in words)}


def _latest(connection: Connection, pipeline_name: str) -> Version:
    pipeline_id = find_pipeline(connection, pipeline_name)
    for version in find_versions(connection, pipeline_id) if pipeline_id else []:
        return version
    raise UserError(f"{pipeline_name} has no version yet; run `python pipeline.py upload` first")


def _list(arguments: argparse.Namespace, _pipeline: BaseComponent) -> int:
    connection = connect(arguments)
    zone = find_zone(connection, arguments)
    items = recurring.every(connection)
    for item in items:
        one = recurring.read(item)
        line = f"{one.name:<22}  {_state(one):<8}  {write(one.schedule):<14}  {_next(connection, item, zone)}"
        print(line.rstrip())
    if not items:
        print("no recurring run yet; make one with `python pipeline.py schedule add`")
    return 0


def _next(connection: Connection, item: Any, zone: tzinfo) -> str:
    schedule = recurring.read(item).schedule
    try:
        understood = parse_kfp(schedule.cron) if schedule.cron else schedule
    except UserError:
        return "misread by KFP, or not understood here; see `python pipeline.py schedule audit`"
    time = recurring.next_time(connection, item, understood, zone)
    return f"next {time:%Y-%m-%d %H:%M} UTC" if time else ""


def _state(one: Recurring) -> str:
    return "enabled" if one.enabled else "paused"


def _pause(arguments: argparse.Namespace, _pipeline: BaseComponent) -> int:
    connection = connect(arguments)
    item = recurring.find(connection, arguments.name)
    connection.client.disable_recurring_run(item.recurring_run_id)
    print(f"{item.display_name}: paused; a run under way goes on")
    print(connection.ui_link("recurring_run", item.recurring_run_id))
    return 0


def _resume(arguments: argparse.Namespace, _pipeline: BaseComponent) -> int:
    connection = connect(arguments)
    item = recurring.find(connection, arguments.name)
    connection.client.enable_recurring_run(item.recurring_run_id)
    missed = "the last" if item.no_catchup else "every one"
    print(f"{item.display_name}: resumed; of the runs missed meanwhile, {missed} starts now")
    print(connection.ui_link("recurring_run", item.recurring_run_id))
    return 0


def _remove(arguments: argparse.Namespace, _pipeline: BaseComponent) -> int:
    connection = connect(arguments)
    item = recurring.find(connection, arguments.name)
    recurring.remove(connection, item.recurring_run_id)
    print(f"{item.display_name}: removed; a run under way goes on")
    return 0


def _audit(arguments: argparse.Namespace, _pipeline: BaseComponent) -> int:
    connection = connect(arguments)
    found = list(audit(connection, find_zone(connection, arguments)))
    for one in found:
        print(f"{one.recurring.name}: {_state(one.recurring)}, {one.recurring.schedule}")
        age = f", {one.age.days} days old" if one.age is not None else ""
        print(f"  version  {one.version}{age}")
        last = f"{one.last_state} {one.last_time:%Y-%m-%d %H:%M} UTC" if one.last_time else "no run yet"
        print(f"  last     {last}")
        for text in one.wrong:
            print(f"  wrong    {text}")
        if one.wrong:
            print(f"  {connection.ui_link('recurring_run', one.id)}")
    wrong = sum(bool(one.wrong) for one in found)
    print(f"recurring runs: {len(found)}, with something wrong: {wrong}")
    return 1 if wrong else 0
