"""TrainJobs as processes of this machine, by the SDK's local backend."""

import os
import shutil
import sys
import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from kubeflow.trainer import CustomTrainer, LocalProcessBackendConfig, TrainerClient
from kubeflow.trainer.options import Name

from components.shared.training.distributed.trainjob.backend import JobState, Trouble
from components.shared.training.distributed.trainjob.log_tail import tail_log
from components.shared.training.distributed.trainjob.manifest import JobSpec

DELETE_SECONDS = 30


class LocalBackend:
    """A TrainJobBackend for this machine; each method does what TrainJobBackend says."""

    def __init__(self, poll_seconds: float) -> None:
        self._client = TrainerClient(LocalProcessBackendConfig())
        self._poll_seconds = poll_seconds
        self._names: list[str] = []

    def state(self, name: str) -> JobState:
        """Return the state of a job."""
        if name not in self._names:
            return JobState.ABSENT
        status = self._client.get_job(name).status
        return JobState(status) if status in (JobState.COMPLETE.value, JobState.FAILED.value) else JobState.ACTIVE

    def submit(self, name: str, spec: JobSpec) -> None:
        """Start the processes of all nodes by one torchrun."""
        processes = str(spec.nodes * spec.processes)
        command = spec.command(sys.executable, "--standalone", "--nproc-per-node", processes)
        runtime = self._client.get_runtime("torch-distributed")
        runtime.trainer.framework = "python"  # the SDK's new virtual environment has Python, but no torchrun
        trainer = CustomTrainer(func=_exec, func_args={"command": command}, env=dict(os.environ))
        self._names.append(self._client.train(runtime=runtime, trainer=trainer, options=[Name(name)]))

    def delete(self, name: str) -> None:
        """Wait for the end of a job, then delete it and its virtual environment."""
        if name not in self._names:
            return
        with suppress(TimeoutError):
            ends = {JobState.COMPLETE.value, JobState.FAILED.value}
            self._client.wait_for_job_status(name, ends, timeout=DELETE_SECONDS, polling_interval=1)
        self._names.remove(name)
        self._client.delete_job(name)
        for folder in Path(tempfile.gettempdir()).glob(f"{name}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def trouble(self, name: str) -> Trouble:
        """Return nothing: a process starts at once, and nobody tells why it was killed."""
        return Trouble()

    def show_logs(self, name: str) -> AbstractContextManager[None]:
        """Print the job's log; the SDK's own `follow` would print it and then return all lines again."""
        return tail_log(self._client, name, follow=False, poll_seconds=self._poll_seconds)

    def close(self) -> None:
        """Delete all jobs."""
        for name in self._names:
            self._client.delete_job(name)


def _exec(parameters: dict[str, list[str]]) -> None:
    """Become the command; the SDK runs the source of this function alone, in a Python of its own."""
    import os

    os.execv(parameters["command"][0], parameters["command"])
