"""Run a compiled pipeline in containers with KFP's DockerRunner, as restricted as in the strictest cluster.

python tests/images/run_in_docker.py PACKAGE ROOT PICTURES PARAMETERS [STEP]

Artifacts go to ROOT, the folder PICTURES is mounted as /pictures, PARAMETERS are JSON. The first container of STEP is
killed in the middle of its work; KFP's retry then starts another one, here without a delay.
"""

import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import docker
import kfp.components
import kfp.local
from kfp.local import docker_task_handler

AT_WORK = b"[train] epoch "  # in the log of a step that is to be killed


def main(package: str, root: str, pictures: str, parameters: str, to_kill: str = "") -> None:
    user = os.getuid() or 65532
    os.chown(root, user, -1)
    left = [to_kill] if to_kill else []

    def run_docker_container(client: docker.DockerClient, image: str, command: list[str], **options: Any) -> int:
        """Run a container as KFP does, but remove it here: KFP takes a container that is gone for a success."""
        container = client.containers.run(image, command, detach=True, **options)
        try:
            for line in container.logs(stream=True):
                print(line.decode(), end="", flush=True)
                if AT_WORK in line and left and left[0] in command:
                    container.kill("SIGKILL")
                    print("killed with", sorted(path.name for path in Path(root).glob(f"*/{left.pop()}/*")))
            return int(container.wait()["StatusCode"])
        finally:
            container.remove(force=True)

    # Read in KFP 2.17.0: the handler of a task looks this function up in its module.
    assert "run_docker_container(" in inspect.getsource(docker_task_handler.DockerTaskHandler.run)
    docker_task_handler.run_docker_container = run_docker_container
    runner = kfp.local.DockerRunner(
        user=f"{user}:{user}",
        read_only=True,
        tmpfs={"/tmp": "size=256m"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="none",
        pids_limit=256,
        mem_limit="3g",
        mounts=[docker.types.Mount("/pictures", pictures, type="bind", read_only=True)],
    )
    kfp.local.init(runner, pipeline_root=root, raise_on_error=True)
    text = re.sub(r"backoffDuration: \d+s", "backoffDuration: 0s", Path(package).read_text())
    kfp.components.load_component_from_text(text)(**json.loads(parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
