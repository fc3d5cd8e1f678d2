"""The steps as Kubeflow components: the ports, each with its image.

KFP writes the source of a component into the pipeline, where Argo keeps it many times. The images have it already, so a
component only names its port, and the code that it expects there.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl
from kfp.dsl import TaskConfigField, TaskConfigPassthrough
from kfp.dsl.base_component import BaseComponent

from components import ports
from components.entrypoints.run_step import START
from components.shared.container_images import image
from components.shared.core.code_digest import code_digest, code_version
from components.step_table import MODULES

DATA_IMAGE = image("data")
SERVE_IMAGE = image("serve")
TORCH_IMAGE = image("torch")
ITS_IMAGE = {"STEP_IMAGE": TORCH_IMAGE}  # for the pods of the job, and for a version's provenance
PASSED_ON = [  # to the pods of a TrainJob
    TaskConfigField.RESOURCES,
    TaskConfigField.KUBERNETES_NODE_SELECTOR,
    TaskConfigField.KUBERNETES_TOLERATIONS,
    TaskConfigPassthrough(field=TaskConfigField.ENV, apply_to_task=True),
    TaskConfigPassthrough(field=TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
]


def _component(
    port: Callable[..., Any], base_image: str, env: Mapping[str, str] = {}, **settings: Any
) -> BaseComponent:
    component: BaseComponent = dsl.component(port, base_image=base_image, install_kfp_package=False, **settings)
    container = component.component_spec.implementation.container
    container.command = START
    # A step refuses to run other code than that from which the pipeline was compiled.
    code = [code_version(), code_digest(MODULES[port.__name__])]
    container.args = [port.__name__, *code, "{{$}}"]
    container.env = dict(env)
    return component


resolve = _component(ports.resolve, DATA_IMAGE)
resolve_prediction = _component(ports.resolve_prediction, DATA_IMAGE)
download = _component(ports.download, DATA_IMAGE)
preprocess = _component(ports.preprocess, DATA_IMAGE)
partition = _component(ports.partition, DATA_IMAGE)
prepare = _component(ports.prepare, DATA_IMAGE)
settle = _component(ports.settle, DATA_IMAGE)
train = _component(ports.train, TORCH_IMAGE)
train_distributed = _component(ports.train_distributed, TORCH_IMAGE, ITS_IMAGE, task_config_passthroughs=PASSED_ON)
trial = _component(ports.trial, TORCH_IMAGE)
compare = _component(ports.compare, TORCH_IMAGE)
evaluate = _component(ports.evaluate, TORCH_IMAGE)
export = _component(ports.export, TORCH_IMAGE)
register = _component(ports.register, TORCH_IMAGE, ITS_IMAGE)
predict = _component(ports.predict, SERVE_IMAGE)
collect = _component(ports.collect, SERVE_IMAGE)
finish = _component(ports.finish, DATA_IMAGE)
