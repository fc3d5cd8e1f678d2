"""A process that imports what the steps of a run need, and forks for each of them.

Python and PyTorch take two seconds to start, and three steps of a run need them. Only on Linux: elsewhere libraries
that PyTorch loads do not survive a fork.

python3 -m runner.local.fork_server CHANNEL     # a socket of the runner's, by its file descriptor
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from components.entrypoints.run_step import main
from components.step_table import MODULES
from runner.local.processes import die_with_parent, end_with_parent, name_process


class ForkServer:
    """Starts the process with the first step, and ends it with the block. Raises RuntimeError if it ends by itself."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._server:
            self._socket.close()
            self._channel.close()
            self._server.wait()

    def start(self, arguments: list[str], environment: Mapping[str, str], output: int) -> "ForkedStep":
        """Start a step with arguments of run_step and further variables; all that it prints goes to a descriptor."""
        if not self._server:
            self._start_server()
        socket.send_fds(self._socket, [b"\n"], [output])
        self._channel.write(json.dumps([arguments, dict(environment)]) + "\n")
        self._channel.flush()
        return ForkedStep(self._socket, self._channel)

    def _start_server(self) -> None:
        self._socket, its_end = socket.socketpair()
        self._channel = self._socket.makefile("rw")
        with its_end:
            command = [sys.executable, "-m", "runner.local.fork_server", str(its_end.fileno())]
            self._server = subprocess.Popen(
                die_with_parent(command, signal.SIGKILL),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[its_end.fileno()],
                start_new_session=True,  # Ctrl-C is for the runner, which ends the step
            )


class ForkedStep:
    """A step that the server has started."""

    def __init__(self, socket: socket.socket, channel: IO[str]) -> None:
        self._socket, self._channel = socket, channel
        self.pid = self._read()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when the step has ended; that of a signal is negative. Raises TimeoutExpired."""
        if not select.select([self._socket], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("step", timeout or 0)
        return self._read()

    def _read(self) -> int:
        line = self._channel.readline()
        if not line:
            raise RuntimeError("the process that starts the steps has ended")
        return int(line)


def serve(channel: socket.socket) -> list[str]:
    """Fork for each step that is asked for, and return its arguments in the new process. Exit with the runner."""
    lines = channel.makefile("rw")
    while True:
        _, outputs, *_ = socket.recv_fds(channel, 1, 1)
        if not outputs:
            sys.exit()
        _print_to(outputs[0])
        arguments, environment = json.loads(lines.readline())
        _import_step(arguments[0])
        gc.freeze()  # the steps need not look for garbage in what they share, which would copy it
        server = os.getpid()
        if (pid := os.fork()) == 0:
            _become_step(arguments[0], environment, server)
            _reply(lines, os.getpid())
            return list(arguments)
        _print_to(os.open(os.devnull, os.O_WRONLY))  # so that the runner sees the end of the step's output
        _, status = os.waitpid(pid, 0)
        _reply(lines, os.waitstatus_to_exitcode(status))


def _print_to(output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def _import_step(name: str) -> None:
    """Import the step's module; if that fails, so does the step, which then says why."""
    with suppress(Exception):
        importlib.import_module(MODULES[name])


def _become_step(name: str, environment: dict[str, str], server: int) -> None:
    os.setsid()  # so that it can be ended together with its own children
    end_with_parent(server, signal.SIGKILL)
    name_process(name)
    os.environ.update(environment)


def run_step() -> int:
    """Run the step of the command line, print why it failed, and return its exit code."""
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _reply(lines: IO[str], number: int) -> None:
    lines.write(f"{number}\n")
    lines.flush()


if __name__ == "__main__":
    # The threads are OpenBLAS's, which starts them again after a fork.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    with socket.socket(fileno=int(sys.argv[1])) as runner:
        sys.argv[1:] = serve(runner)
    os._exit(run_step())  # Python would take a second to tidy up all that the server has imported
