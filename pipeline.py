"""The pipelines: resolve, download, preprocess, train, evaluate and export side by side, register.

Of a model that is not accepted nothing is exported or registered.

`training` trains once, `sweep` once for each of several settings, of which the best is evaluated, and `distributed` on
several machines, by a job of Kubeflow Trainer. `bigdata` prepares the data in many pods: resolve, partition, prepare
side by side, settle, and then as `training`. `prediction` has a model that was exported predict pictures: resolve,
download, predict in several pods side by side, collect.

python pipeline.py local data=mnist epochs=3     # compile it and run it on this machine
python pipeline.py local --graph sweep           # the same with another graph
python pipeline.py compile                       # write build/*.yaml for the Kubeflow UI
"""

if __name__ == "__main__":  # before KFP is imported and the graphs are made, which help and mistakes need not wait for
    from importlib import import_module

    from runner.cli import main

    main(lambda: import_module("pipeline").GRAPHS)

from collections.abc import Callable
from functools import partial
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineArtifactChannel

from components import steps
from components.shared.parameters.form import docstring_of, signature_of
from components.shared.parameters.table import DISTRIBUTED
from runner.kfp_patches import quick_tasks
from runner.pods import HOUR, MINUTE, Inputs, Resources, configure_pod

RESOURCES = {  # of the steps that do not train; those that do have parameters for it
    "resolve": Resources(("100m", "1"), ("256Mi", "1Gi"), 10 * MINUTE),
    "resolve-prediction": Resources(("100m", "1"), ("256Mi", "1Gi"), 10 * MINUTE),
    "download": Resources(("250m", "2"), ("512Mi", "2Gi"), 6 * HOUR),
    "preprocess": Resources(("1", "4"), ("2Gi", "4Gi"), 24 * HOUR),
    "partition": Resources(("250m", "2"), ("512Mi", "2Gi"), 6 * HOUR),
    "prepare": Resources(("1", "4"), ("2Gi", "4Gi"), 24 * HOUR),
    "settle": Resources(("500m", "2"), ("1Gi", "4Gi"), 6 * HOUR),
    "compare": Resources(("250m", "2"), ("1Gi", "4Gi"), 2 * HOUR),
    "evaluate": Resources(("1", "4"), ("2Gi", "4Gi"), 2 * HOUR),
    "export": Resources(("1", "4"), ("2Gi", "4Gi"), 2 * HOUR),
    "register": Resources(("500m", "2"), ("1Gi", "4Gi"), 6 * HOUR),
    "predict": Resources(("1", "4"), ("2Gi", "4Gi"), 24 * HOUR),
    "collect": Resources(("500m", "2"), ("1Gi", "4Gi"), 6 * HOUR),
    "finish": Resources(("100m", "1"), ("256Mi", "1Gi"), HOUR),
}
RECORDED = ("data", "store", "model_name", "options")  # in a run's record, even if resolve failed
Prepare = Callable[[PipelineTask, Inputs], PipelineArtifactChannel]
Train = Callable[[PipelineArtifactChannel, PipelineTask, Inputs], PipelineArtifactChannel]


def _finish(graph: str, inputs: Inputs) -> PipelineTask:
    """Add the step that runs last, whatever happened."""
    recorded = {name: inputs[name] for name in RECORDED}
    run = {"run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "run_name": dsl.PIPELINE_JOB_NAME_PLACEHOLDER}
    ended = _add(steps.finish, inputs, graph=graph, **run, **recorded).set_caching_options(False)
    if graph == DISTRIBUTED:  # only this image has what deletes a TrainJob
        ended.set_container_image(steps.TORCH_IMAGE)
    return ended


def _flow(graph: str, inputs: Inputs, prepare: Prepare, train: Train) -> None:
    """Connect the steps of the graph whose data comes from `prepare`, and its model from `train`."""
    with dsl.ExitHandler(_finish(graph, inputs), name="training"):
        resolved = _add(steps.resolve, inputs, graph=graph, **inputs).set_caching_options(False)
        recipe = resolved.outputs
        data = prepare(resolved, inputs)
        model = train(data, resolved, inputs)
        trained = {"dataset": data, "model": model}
        # No dsl.If: a graph of its own takes Argo 10 s, and so does each step that waits for another.
        evaluated = _add(steps.evaluate, inputs, **trained, recipe=recipe["evaluation"])
        exported = _add(steps.export, inputs, **trained, recipe=recipe["export"])
        judged = {"evaluation": evaluated.outputs["evaluation"], "package": exported.outputs["package"]}
        registered = _add(steps.register, inputs, **trained, **judged, recipe=recipe["registration"])
        registered.set_caching_options(False)  # the store may be another one, and its champion too


def _source(resolved: PipelineTask, inputs: Inputs) -> dict[str, Any]:
    return {"data": inputs["data"], "version": resolved.outputs["version"], "recipe": resolved.outputs["reading"]}


def _prepare(resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Prepare the data in one pod: source -> prepared data."""
    raw = _add(steps.download, inputs, **_source(resolved, inputs), needs_labels=True)
    preparation = {"recipe": resolved.outputs["preparation"], "prepared_by": resolved.outputs["prepared_by"]}
    return _add(steps.preprocess, inputs, raw=raw.outputs["raw"], **preparation).outputs["dataset"]


def _prepare_in_parts(resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Prepare the data in many pods, none of which holds all of it: source -> prepared data."""
    recipe = resolved.outputs
    source = {"data": inputs["data"], "version": recipe["version"], "reading": recipe["reading"]}
    listed = _add(steps.partition, inputs, **source, recipe=recipe["preparation"])
    # The store may lack by now what an earlier run left there: an archive that it had repacked, or units.
    listing = listed.set_caching_options(False).outputs["listing"]
    with dsl.ParallelFor(recipe["Output"], name="parts") as one:
        prepared = _add(steps.prepare, inputs, listing=listing, planned=one)
        prepared.set_caching_options(False)
    parts = dsl.Collected(prepared.outputs["part"])
    return _add(steps.settle, inputs, listing=listing, parts=parts).set_caching_options(False).outputs["dataset"]


def _train(data: PipelineArtifactChannel, resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Train once: prepared data -> model."""
    return _add(steps.train, inputs, dataset=data, recipe=resolved.outputs["training"]).outputs["model"]


def _search(data: PipelineArtifactChannel, resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Train once for each setting: prepared data -> the best model."""
    # KFP's local runner wants the name `Output`, and passes no other text into a loop.
    with dsl.ParallelFor(resolved.outputs["Output"], name="trials") as one:
        tried = _add(steps.trial, inputs, dataset=data, planned=one)
    compared = _add(steps.compare, inputs, trials=dsl.Collected(tried.outputs["trials"]), store=inputs["store"])
    return compared.outputs["model"]


def _submit(data: PipelineArtifactChannel, resolved: PipelineTask, inputs: Inputs) -> PipelineArtifactChannel:
    """Train once by a job on many nodes, to whose pods the step passes its resources on: prepared data -> model."""
    return _add(steps.train_distributed, inputs, dataset=data, recipe=resolved.outputs["training"]).outputs["model"]


def _predict(graph: str, inputs: Inputs) -> None:
    """Connect the steps that predict: raw data -> the table of predictions."""
    with dsl.ExitHandler(_finish(graph, inputs), name="prediction"):
        resolved = _add(steps.resolve_prediction, inputs, **inputs).set_caching_options(False)  # whoever is champion
        recipe = resolved.outputs
        raw = _add(steps.download, inputs, **_source(resolved, inputs), needs_labels=False)
        with dsl.ParallelFor(recipe["Output"], name="parts") as one:
            predicted = _add(steps.predict, inputs, raw=raw.outputs["raw"], planned=one)
        shares = dsl.Collected(predicted.outputs["share"])
        collected = _add(steps.collect, inputs, shares=shares, recipe=recipe["collection"])
        collected.set_caching_options(False)  # the store may lack by now what an earlier run left there


def _add(step: BaseComponent, inputs: Inputs, **arguments: Any) -> PipelineTask:
    """Add a step to the graph, and configure its pod by the pipeline's inputs."""
    task = step(**arguments)
    configure_pod(task, inputs, RESOURCES.get(step.name))
    return task


def _pipeline(graph: str, description: str, train: Train, prepare: Prepare = _prepare) -> BaseComponent:
    """Return the pipeline torch2kubeflow-`graph`, whose data comes from `prepare`, and its model from `train`."""
    return _connected(graph, description, partial(_flow, prepare=prepare, train=train))


def _connected(graph: str, description: str, connect: Callable[[str, Inputs], None]) -> BaseComponent:
    """Return the pipeline torch2kubeflow-`graph` with the inputs that shared/parameters/form.py gives it.

    Its steps are connected by `connect`. KFP reads the inputs from the signature and docstring of the function that
    makes the graph, and then calls it with all of them in order.
    """
    declared = signature_of(graph)

    def flow(*values: Any) -> None:
        connect(graph, dict(zip(declared.parameters, values, strict=True)))

    flow.__signature__ = declared  # type: ignore[attr-defined]
    flow.__doc__ = docstring_of(graph, description)
    with quick_tasks():
        pipeline: BaseComponent = dsl.pipeline(name=f"torch2kubeflow-{graph}", description=description)(flow)
    return pipeline


training = _pipeline("training", "From images to an evaluated, exported classifier.", _train)
sweep = _pipeline("sweep", "The best of several trainings, evaluated and exported.", _search)
distributed = _pipeline("distributed", "A classifier trained on many nodes by Kubeflow Trainer.", _submit)
bigdata = _pipeline("bigdata", "A classifier of more pictures than a disk holds.", _train, _prepare_in_parts)
prediction = _connected("prediction", "Pictures predicted by a registered classifier.", _predict)
GRAPHS = {
    "training": training,
    "sweep": sweep,
    "distributed": distributed,
    "bigdata": bigdata,
    "prediction": prediction,
}
