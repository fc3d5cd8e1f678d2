"""The steps of the small pipelines of tests: python3 -m tests.runner.local.loop_steps STEP EXECUTOR_INPUT"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output
from kfp.dsl.base_component import BaseComponent

START = ["python3", "-m", "tests.runner.local.loop_steps"]


def component(function: Callable[..., Any]) -> BaseComponent:
    """A step that is started as our own are, by its name."""
    made: BaseComponent = dsl.component(function, base_image="torch2kubeflow/data:none", install_kfp_package=False)
    container = made.component_spec.implementation.container
    container.command, container.args = START, [function.__name__, "{{$}}"]
    return made


def plan(settings: list[list[str]]) -> list[str]:
    return settings[0][1:]  # as the runner passes a list of objects on


def trial(item: str, model: Output[Dataset]) -> None:
    if item == "hang":
        print("asleep", flush=True)
        time.sleep(600)
    assert item != "bad", "this one fails"
    started = time.time()
    time.sleep(0.2)
    with open(model.path, "w") as file:
        file.write(f"{item} {started} {time.time()} {os.getpid()}")


def compare(models: Input[list[Dataset]], model: Output[Artifact]) -> None:
    with open(model.path, "w") as file:
        for one in models:
            with open(one.path) as made:
                file.write(made.read() + "\n")


def tell(run_id: str, data: str, told: Output[Artifact]) -> None:
    with open(told.path, "w") as file:
        file.write(f"{run_id} {data}")


if __name__ == "__main__":
    from kfp.dsl.executor_main import executor_main

    step, executor_input = sys.argv[1:]
    sys.argv[1:] = ["--component_module_path", __file__, "--function_to_execute", step]
    sys.argv += ["--executor_input", executor_input]
    executor_main()
