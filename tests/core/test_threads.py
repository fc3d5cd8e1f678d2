"""A process does not go on without a thread that it needs."""

import subprocess
import sys

from tests.conftest import ROOT

SCRIPT = """
import time
from components.shared.core.threads import start_vital
print("begun")
start_vital(print, "works").join()
start_vital(int, "no number")
time.sleep(60)
print("went on")
"""


def test_a_process_ends_when_a_vital_thread_dies() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (1, "begun\nworks\n")
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("'no number'\n")
