"""Run a step by its port, as KFP's launcher and local runner start it.

python3 -m components.entrypoints.run_step PORT CODE_VERSION CODE_DIGEST EXECUTOR_INPUT
"""

import logging
import os
import sys
from pathlib import Path

from components.shared.core.printable import told

READS = ("components.entrypoints.run_step",)
START = ["python3", "-m", *READS]
PORTS = Path(__file__).parents[1] / "ports.py"


def main() -> None:
    """Run the step that the command line names."""
    port, version, digest, executor_input = sys.argv[1:]
    os.environ |= {"CODE_VERSION": version, "CODE_DIGEST": digest}
    os.environ["_KFP_RUNTIME"] = "true"  # KFP imports only what a step needs
    from kfp.dsl.executor_main import executor_main

    logging.getLogger().addFilter(_tell)
    sys.argv[1:] = ["--component_module_path", str(PORTS), "--function_to_execute", port]
    sys.argv += ["--executor_input", executor_input]
    executor_main()


def _tell(record: logging.LogRecord) -> bool:
    """Take the queries of addresses out of a line of the log: KFP logs all inputs of a step."""
    record.msg, record.args = told(record.getMessage()), ()
    return True


if __name__ == "__main__":
    main()
