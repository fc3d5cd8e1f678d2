"""The Kubeflow ports of the steps: a typed signature, an image, one call each, and no logic."""

from typing import Any

from kfp import dsl
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
    TaskConfigField,
    TaskConfigPassthrough,
)

from components.shared.container_images import image

DATA_IMAGE = image("data")
TORCH_IMAGE = image("torch")


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def resolve(
    graph: str,
    data: str,
    image_size: int,
    val_fraction: float,
    test_fraction: float,
    max_bad_images: int,
    network: str,
    activation: str,
    pooling: str,
    bias: bool,
    pretrained: str,
    frozen_stages: int,
    optimizer: str,
    schedule: str,
    learning_rate: float,
    weight_decay: float,
    batch_size: str,
    accumulate: int,
    clip_norm: float,
    epochs: int,
    label_smoothing: float,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
    flip: bool,
    mixup: float,
    cutmix: float,
    ema_decay: float,
    patience: int,
    precision: str,
    torch_compile: bool,
    deterministic: bool,
    min_accuracy: float,
    min_recall: float,
    seed: int,
    threads: int,
    store: str,
    model_name: str,
    significance: float,
    checkpoint_seconds: int,
    handover_mib: int,
    nodes: int,
    gpus: str,
    gpu_resource: str,
    node_selector: dict[str, str],
    tolerations: list[dict[str, str]],
    train_cpu: str,
    train_memory: str,
    s3_secret: str,
    s3_config: str,
    source_secret: str,
) -> str:
    """Check every parameter of the run, and find the version of the data set."""
    parameters = dict(locals())
    from components import resolve

    return resolve.resolve(**parameters)


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def download(data: str, version: str, raw: Output[Artifact]) -> None:
    """Fetch the raw files of a data set and verify them."""
    from components import download

    download.download(data=data, version=version, raw=raw.path)


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def preprocess(
    raw: Input[Artifact],
    image_size: int,
    val_fraction: float,
    test_fraction: float,
    max_bad_images: int,
    seed: int,
    store: str,
    handover_mib: int,
    dataset: Output[Dataset],
) -> None:
    """Turn raw files into a prepared dataset with train, val and test splits."""
    from components import preprocess

    preprocess.preprocess(
        raw=raw.path,
        image_size=image_size,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        max_bad_images=max_bad_images,
        seed=seed,
        store=store,
        handover_mib=handover_mib,
        dataset=dataset.path,
    )


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def train(
    dataset: Input[Dataset],
    network: str,
    activation: str,
    pooling: str,
    bias: bool,
    pretrained: str,
    frozen_stages: int,
    optimizer: str,
    schedule: str,
    learning_rate: float,
    weight_decay: float,
    batch_size: str,
    accumulate: int,
    clip_norm: float,
    epochs: int,
    label_smoothing: float,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
    flip: bool,
    mixup: float,
    cutmix: float,
    ema_decay: float,
    patience: int,
    precision: str,
    torch_compile: bool,
    deterministic: bool,
    seed: int,
    threads: int,
    gpus: str,
    store: str,
    checkpoint_seconds: int,
    model: Output[Model],
) -> None:
    """Train a network and keep the weights of the best epoch."""
    from components import train

    train.train(
        dataset=dataset.path,
        network=network,
        activation=activation,
        pooling=pooling,
        bias=bias,
        pretrained=pretrained,
        frozen_stages=frozen_stages,
        optimizer=optimizer,
        schedule=schedule,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        batch_size=batch_size,
        accumulate=accumulate,
        clip_norm=clip_norm,
        epochs=epochs,
        label_smoothing=label_smoothing,
        rotation=rotation,
        shift=shift,
        scale=scale,
        shear=shear,
        flip=flip,
        mixup=mixup,
        cutmix=cutmix,
        ema_decay=ema_decay,
        patience=patience,
        precision=precision,
        torch_compile=torch_compile,
        deterministic=deterministic,
        seed=seed,
        threads=threads,
        gpus=gpus,
        store=store,
        checkpoint_seconds=checkpoint_seconds,
        model=model.path,
    )


@dsl.component(
    base_image=TORCH_IMAGE,
    install_kfp_package=False,
    task_config_passthroughs=[
        TaskConfigField.RESOURCES,
        TaskConfigField.KUBERNETES_NODE_SELECTOR,
        TaskConfigField.KUBERNETES_TOLERATIONS,
        TaskConfigPassthrough(field=TaskConfigField.ENV, apply_to_task=True),
        TaskConfigPassthrough(field=TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
    ],
)
def train_distributed(
    dataset: Input[Dataset],
    network: str,
    activation: str,
    pooling: str,
    bias: bool,
    pretrained: str,
    frozen_stages: int,
    optimizer: str,
    schedule: str,
    learning_rate: float,
    weight_decay: float,
    batch_size: str,
    accumulate: int,
    clip_norm: float,
    epochs: int,
    label_smoothing: float,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
    flip: bool,
    mixup: float,
    cutmix: float,
    ema_decay: float,
    patience: int,
    precision: str,
    torch_compile: bool,
    deterministic: bool,
    seed: int,
    threads: int,
    nodes: int,
    gpus: str,
    store: str,
    checkpoint_seconds: int,
    task_config: TaskConfig,
    model: Output[Model],
) -> None:
    """Have a TrainJob of many nodes train a network, and fetch the model."""
    parameters = dict(locals())
    from components import train_distributed

    train_distributed.train_distributed(**{**parameters, "dataset": dataset.path, "model": model.path})


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def plan(
    dataset: Input[Dataset],
    settings: list[dict[str, Any]],
    stopping: str,
    reduction: int,
    first_rung: int,
    image_size: int,
    seed: int,
    gpus: str,
    store: str,
    network: str,
    activation: str,
    pooling: str,
    bias: bool,
    pretrained: str,
    frozen_stages: int,
    optimizer: str,
    schedule: str,
    learning_rate: float,
    weight_decay: float,
    batch_size: str,
    accumulate: int,
    clip_norm: float,
    epochs: int,
    label_smoothing: float,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
    flip: bool,
    mixup: float,
    cutmix: float,
    ema_decay: float,
    patience: int,
    precision: str,
    torch_compile: bool,
    deterministic: bool,
) -> list[str]:
    """Check the settings of a sweep, and plan a trial of each."""
    parameters = dict(locals())
    from components import plan

    return plan.plan(**{**parameters, "dataset": dataset.path})


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def trial(
    dataset: Input[Dataset],
    planned: str,
    seed: int,
    threads: int,
    gpus: str,
    store: str,
    checkpoint_seconds: int,
    model: Output[Model],
) -> None:
    """Train with one setting of a sweep, as far as it keeps up with the others."""
    from components import trial

    trial.trial(
        dataset=dataset.path,
        planned=planned,
        seed=seed,
        threads=threads,
        gpus=gpus,
        store=store,
        checkpoint_seconds=checkpoint_seconds,
        model=model.path,
    )


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def compare(
    models: Input[list[Model]],
    store: str,
    model: Output[Model],
    comparison: Output[Artifact],
    sweep: Output[HTML],
) -> None:
    """Choose the best trial of a sweep by its validation accuracy, and report all."""
    from components import compare

    compare.compare(
        models=[trial.path for trial in models],
        store=store,
        model=model.path,
        comparison=comparison.path,
        sweep=sweep.path,
    )


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def evaluate(
    dataset: Input[Dataset],
    model: Input[Model],
    min_accuracy: float,
    min_recall: float,
    threads: int,
    store: str,
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    report: Output[HTML],
    evaluation: Output[Artifact],
) -> bool:
    """Measure the model on the test split, once, and judge it."""
    from components import evaluate

    result = evaluate.evaluate(
        dataset=dataset.path,
        model=model.path,
        min_accuracy=min_accuracy,
        min_recall=min_recall,
        threads=threads,
        store=store,
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


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def export(
    dataset: Input[Dataset],
    model: Input[Model],
    evaluation: Input[Artifact],
    threads: int,
    package: Output[Artifact],
) -> None:
    """Write ONNX and torch.export programs and prove that they agree with PyTorch."""
    from components import export

    export.export(
        dataset=dataset.path,
        model=model.path,
        evaluation=evaluation.path,
        threads=threads,
        package=package.path,
    )


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)
def register(
    dataset: Input[Dataset],
    model: Input[Model],
    evaluation: Input[Artifact],
    package: Input[Artifact],
    store: str,
    model_name: str,
    significance: float,
    threads: int,
    registration: Output[Artifact],
    promotion: Output[HTML],
) -> None:
    """Make an exported model a version in the store, and the champion if it is better."""
    from components import register

    register.register(
        dataset=dataset.path,
        model=model.path,
        evaluation=evaluation.path,
        package=package.path,
        store=store,
        model_name=model_name,
        significance=significance,
        threads=threads,
        registration=registration.path,
        promotion=promotion.path,
    )


@dsl.component(base_image=DATA_IMAGE, install_kfp_package=False)
def finish(
    run_id: str,
    run_name: str,
    status: PipelineTaskFinalStatus,
    graph: str,
    data: str,
    image_size: int,
    val_fraction: float,
    test_fraction: float,
    max_bad_images: int,
    network: str,
    activation: str,
    pooling: str,
    bias: bool,
    pretrained: str,
    frozen_stages: int,
    optimizer: str,
    schedule: str,
    learning_rate: float,
    weight_decay: float,
    batch_size: str,
    accumulate: int,
    clip_norm: float,
    epochs: int,
    label_smoothing: float,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
    flip: bool,
    mixup: float,
    cutmix: float,
    ema_decay: float,
    patience: int,
    precision: str,
    torch_compile: bool,
    deterministic: bool,
    min_accuracy: float,
    min_recall: float,
    seed: int,
    threads: int,
    store: str,
    model_name: str,
    significance: float,
    checkpoint_seconds: int,
    handover_mib: int,
    nodes: int,
    gpus: str,
    gpu_resource: str,
    node_selector: dict[str, str],
    tolerations: list[dict[str, str]],
    train_cpu: str,
    train_memory: str,
    s3_secret: str,
    s3_config: str,
    source_secret: str,
    record: Output[Artifact],
    settings: list[dict[str, Any]] = [],  # noqa: B006 (of the graph `sweep`, as the next three)
    stopping: str = "",
    reduction: int = 0,
    first_rung: int = 0,
) -> None:
    """Record how the run ended."""
    parameters = dict(locals())
    from components import finish

    finish.finish(**{**parameters, "record": record.path})
