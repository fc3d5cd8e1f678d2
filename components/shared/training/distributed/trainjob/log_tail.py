"""The log of a job's first node, printed by a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

from components.shared.core.printable import say
from components.shared.training.distributed.trainjob.manifest import NODE

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

FIRST_NODE = (f"{NODE}-0", "train")  # the SDK's names for it, in a cluster and on this machine


@contextmanager
def tail_log(client: "TrainerClient", name: str, follow: bool, poll_seconds: float) -> Iterator[None]:
    """Print each line of the log once, until the context ends and all lines are printed."""
    ended = threading.Event()
    thread = threading.Thread(target=_print, args=(client, name, follow, poll_seconds, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10 * poll_seconds)


def _print(client: "TrainerClient", name: str, follow: bool, poll_seconds: float, ended: threading.Event) -> None:
    pod, printed, is_last = "", 0, False
    while not is_last:
        is_last = ended.is_set()
        with suppress(Exception):  # the SDK raises many kinds if there is no job, no pod, or no log yet
            steps = [step for step in client.get_job(name).steps if step.name in FIRST_NODE]
            if steps and steps[0].pod_name != pod:  # a pod that replaces another begins a new log
                pod, printed = steps[0].pod_name, 0
            for line in islice(client.get_job_logs(name, follow=follow), printed, None):
                say(line, flush=True)
                printed += 1
        ended.wait(poll_seconds)
