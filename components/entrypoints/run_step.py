"""Run a step by its port, as KFP's launcher and local runner start it.

python3 -m components.entrypoints.run_step --function_to_execute train --executor_input '{...}'
"""

import os
import sys
from pathlib import Path

PORTS = Path(__file__).parents[1] / "ports.py"

if __name__ == "__main__":
    os.environ["_KFP_RUNTIME"] = "true"  # KFP imports only what a step needs
    from kfp.dsl.executor_main import executor_main

    sys.argv += ["--component_module_path", str(PORTS)]
    executor_main()
