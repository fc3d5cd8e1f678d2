"""The Kubeflow ports of the steps: a typed signature and one call each, and no logic.

steps.py makes them components. In a pod, entrypoints/run_step.py runs one by its name.
"""

from typing import Any, NamedTuple

from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    Metrics,
    Model,
    Output,
    PipelineTaskFinalStatus,
    TaskConfig,
)


def resolve(
    graph: str,
    data: str,
    store: str,
    network: str,
    image_size: int,
    epochs: int,
    batch_size: str,
    learning_rate: float,
    seed: int,
    min_accuracy: float,
    min_recall: float,
    model_name: str,
    gpus: str,
    gpu_resource: str,
    train_cpu: str,
    train_memory: str,
    node_selector: dict[str, Any],
    tolerations: list[Any],
    s3_secret: str,
    s3_config: str,
    source_secret: str,
    options: dict[str, Any],
    nodes: int = 1,
    settings: list[dict[str, Any]] = [],  # noqa: B006 (of the graph `sweep`)
    parts: int = 1,
) -> NamedTuple(  # type: ignore[valid-type]
    "Resolved",
    [
        ("version", str),
        ("prepared_by", str),
        ("reading", str),
        ("preparation", str),
        ("training", str),
        ("evaluation", str),
        ("export", str),
        ("registration", str),
        ("Output", list),
    ],
):
    """Check every parameter of the run, find the version of the data set, and write the recipe of each step."""
    from components import resolve

    return resolve.resolve(
        graph=graph,
        data=data,
        store=store,
        network=network,
        image_size=image_size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        min_accuracy=min_accuracy,
        min_recall=min_recall,
        model_name=model_name,
        gpus=gpus,
        gpu_resource=gpu_resource,
        train_cpu=train_cpu,
        train_memory=train_memory,
        node_selector=node_selector,
        tolerations=tolerations,
        s3_secret=s3_secret,
        s3_config=s3_config,
        source_secret=source_secret,
        options=options,
        nodes=nodes,
        settings=settings,
        parts=parts,
    )


def resolve_prediction(
    data: str,
    store: str,
    model_name: str,
    model: str,
    parts: int,
    s3_secret: str,
    s3_config: str,
    source_secret: str,
    options: dict[str, Any],
) -> NamedTuple(  # type: ignore[valid-type]
    "Resolved", [("version", str), ("reading", str), ("collection", str), ("Output", list)]
):
    """Check every parameter of the run, find the version of the data set and the model, and deal the pictures."""
    from components.prediction import resolve_prediction

    return resolve_prediction.resolve_prediction(
        data=data,
        store=store,
        model_name=model_name,
        model=model,
        parts=parts,
        s3_secret=s3_secret,
        s3_config=s3_config,
        source_secret=source_secret,
        options=options,
    )


def download(data: str, version: str, recipe: str, needs_labels: bool, raw: Output[Artifact]) -> None:
    """Fetch the raw files of a data set and verify them."""
    from components import download

    download.download(data=data, version=version, recipe=recipe, needs_labels=needs_labels, raw=raw.path)


def preprocess(raw: Input[Artifact], recipe: str, prepared_by: str, dataset: Output[Dataset]) -> None:
    """Turn raw files into a prepared dataset with train, val and test splits."""
    from components import preprocess

    preprocess.preprocess(raw=raw.path, recipe=recipe, prepared_by=prepared_by, dataset=dataset.path)


def partition(data: str, version: str, reading: str, recipe: str, listing: Output[Artifact]) -> None:
    """List the pictures of a data set, of which at most a sample is read."""
    from components.bigdata import partition

    partition.partition(data=data, version=version, reading=reading, recipe=recipe, listing=listing.path)


def prepare(listing: Input[Artifact], planned: str, part: Output[Artifact]) -> None:
    """Prepare the units of one pod, in the store."""
    from components.bigdata import prepare

    prepare.prepare(listing=listing.path, planned=planned, part=part.path)


def settle(listing: Input[Artifact], parts: Input[list[Artifact]], dataset: Output[Dataset]) -> None:
    """Join the units of all pods to a dataset with train, val and test splits."""
    from components.bigdata import settle

    settle.settle(listing=listing.path, parts=[part.path for part in parts], dataset=dataset.path)


def train(dataset: Input[Dataset], recipe: str, model: Output[Model]) -> None:
    """Train a network and keep the weights of the best epoch."""
    from components import train

    train.train(dataset=dataset.path, recipe=recipe, model=model.path)


def train_distributed(dataset: Input[Dataset], recipe: str, task_config: TaskConfig, model: Output[Model]) -> None:
    """Have a TrainJob of many nodes train a network, and fetch the model."""
    from components import train_distributed

    train_distributed.train_distributed(dataset=dataset.path, recipe=recipe, task_config=task_config, model=model.path)


def trial(dataset: Input[Dataset], planned: str, trials: Output[Artifact]) -> None:
    """Train with some settings of a sweep, each as far as it keeps up with the others."""
    from components import trial

    trial.trial(dataset=dataset.path, planned=planned, trials=trials.path)


def compare(
    trials: Input[list[Artifact]],
    store: str,
    model: Output[Model],
    comparison: Output[Artifact],
    sweep: Output[HTML],
) -> None:
    """Choose the best trial of a sweep by its validation accuracy, and report all."""
    from components import compare

    compare.compare(
        trials=[pod.path for pod in trials],
        store=store,
        model=model.path,
        comparison=comparison.path,
        sweep=sweep.path,
    )


def evaluate(
    dataset: Input[Dataset],
    model: Input[Model],
    recipe: str,
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    report: Output[HTML],
    evaluation: Output[Artifact],
) -> bool:
    """Measure the model on the test split and judge it."""
    from components import evaluate

    result = evaluate.evaluate(
        dataset=dataset.path,
        model=model.path,
        recipe=recipe,
        metrics=metrics.path,
        classification=classification.path,
        report=report.path,
        evaluation=evaluation.path,
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    classification.log_confusion_matrix(result.classes, result.confusion_matrix)
    classification.log_roc_curve(*result.roc_curve)
    return result.accepted


def export(
    dataset: Input[Dataset],
    model: Input[Model],
    recipe: str,
    package: Output[Artifact],
) -> None:
    """If the model is accepted, write ONNX and torch.export programs and prove that they agree with PyTorch."""
    from components import export

    export.export(
        dataset=dataset.path,
        model=model.path,
        recipe=recipe,
        package=package.path,
    )


def register(
    dataset: Input[Dataset],
    model: Input[Model],
    evaluation: Input[Artifact],
    package: Input[Artifact],
    recipe: str,
    registration: Output[Artifact],
    promotion: Output[HTML],
) -> None:
    """Make an accepted model a version in the store, and the champion if it is better."""
    from components import register

    register.register(
        dataset=dataset.path,
        model=model.path,
        evaluation=evaluation.path,
        package=package.path,
        recipe=recipe,
        registration=registration.path,
        promotion=promotion.path,
    )


def predict(raw: Input[Artifact], planned: str, share: Output[Artifact]) -> None:
    """Predict the pictures of one pod."""
    from components.prediction import predict

    predict.predict(raw=raw.path, planned=planned, share=share.path)


def collect(
    shares: Input[list[Artifact]],
    recipe: str,
    predictions: Output[Artifact],
    uncertain: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Join the predictions of all pods, and show the least certain ones."""
    from components.prediction import collect

    result = collect.collect(
        shares=[share.path for share in shares],
        recipe=recipe,
        predictions=predictions.path,
        uncertain=uncertain.path,
        metrics=metrics.path,
    )
    for name, value in result.items():
        metrics.log_metric(name, value)


def finish(
    run_id: str,
    run_name: str,
    status: PipelineTaskFinalStatus,
    graph: str,
    data: str,
    store: str,
    model_name: str,
    options: dict[str, Any],
    record: Output[Artifact],
) -> None:
    """Record how the run ended."""
    from components import finish

    finish.finish(
        run_id=run_id,
        run_name=run_name,
        status=status,
        graph=graph,
        data=data,
        store=store,
        model_name=model_name,
        options=options,
        record=record.path,
    )
