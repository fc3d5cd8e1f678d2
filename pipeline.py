"""The training pipeline: resolve, download, preprocess, train, evaluate and, if accepted, export and register.

python pipeline.py local data=mnist epochs=3     # compile it and run it on this machine
python pipeline.py compile                       # write build/pipeline.yaml for the Kubeflow UI
"""

from typing import TypeAlias

from kfp import dsl, kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.pipeline_channel import PipelineParameterChannel

from components import steps

USER = 65532  # who owns the processes in our images
MINUTE, HOUR = 60, 3600
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
S3_PLACE = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_CA_BUNDLE")
S3_FILES = "/etc/torch2kubeflow"  # where the ConfigMap is mounted too, for an authority of one's own in its key ca.crt


Text: TypeAlias = str | PipelineParameterChannel


def _place(
    task: PipelineTask,
    *,
    cpu: tuple[Text, Text],
    memory: tuple[Text, Text],
    seconds: int,
    secrets: tuple[Text, Text, Text],
) -> None:
    """Say how a step runs in a cluster: requests and limits, seconds allowed, retries, labels, user, and S3 access.

    A retry is a second net only: many installations never retry a step that failed, so steps try again themselves.
    """
    task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
    task.set_memory_request(memory[0]).set_memory_limit(memory[1])
    # KFP does not hand the parameters of resources into a group by itself.
    task.register_pipeline_channels([c for c in (*cpu, *memory) if isinstance(c, PipelineParameterChannel)])
    task.set_retry(num_retries=2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    kubernetes.set_timeout(task, seconds)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "torch2kubeflow")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", task.component_spec.name)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    secret, config, source = secrets
    kubernetes.use_secret_as_env(task, secret, {name: name for name in S3_KEYS}, optional=True)
    kubernetes.use_config_map_as_env(task, config, {name: name for name in S3_PLACE}, optional=True)
    kubernetes.use_config_map_as_volume(task, config, mount_path=S3_FILES, optional=True)
    # What cannot be an input, since a step is cached by its inputs.
    kubernetes.use_field_path_as_env(task, "RUN_ID", "metadata.labels['pipeline/runid']")
    task.set_env_variable("STEP_IMAGE", task.container_spec.image)
    kubernetes.use_secret_as_env(task, source, {name: f"SOURCE_{name}" for name in S3_KEYS + S3_PLACE}, optional=True)


def _on_gpu(task: PipelineTask, gpus: Text, resource: Text, node_selector: object, tolerations: object) -> None:
    """Ask for GPUs and the nodes that have them, and for shared memory that holds more than the 64 MiB of a pod."""
    task.set_accelerator_type(resource).set_accelerator_limit(gpus)
    task.register_pipeline_channels([gpus, resource])
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")


@dsl.pipeline(name="torch2kubeflow-training", description="From images to an evaluated, exported classifier.")
def training(
    data: str = "mnist",
    image_size: int = 32,
    val_fraction: float = 0.1,
    test_fraction: float = 0.15,
    max_bad_images: int = 0,
    network: str = "lenet5",
    activation: str = "default",
    pooling: str = "default",
    bias: bool = True,
    optimizer: str = "muon",
    learning_rate: float = 0.02,
    weight_decay: float = 0.0,
    batch_size: int = 256,
    epochs: int = 3,
    label_smoothing: float = 0.05,
    rotation: float = 0.0,
    shift: float = 1.0,
    scale: float = 0.0,
    shear: float = 0.0,
    ema_decay: float = 0.99,
    patience: int = 0,
    min_accuracy: float = 0.98,
    min_recall: float = 0.95,
    seed: int = 0,
    threads: int = 0,
    store: str = "",
    model_name: str = "",
    significance: float = 0.05,
    checkpoint_seconds: int = 30,
    handover_mib: int = 1024,
    gpus: str = "0",
    gpu_resource: str = "nvidia.com/gpu",
    node_selector: dict[str, str] = {},  # noqa: B006 (KFP's defaults are values)
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    train_cpu: str = "2",
    train_memory: str = "4Gi",
    s3_secret: str = "torch2kubeflow-s3",
    s3_config: str = "torch2kubeflow-s3",
    source_secret: str = "torch2kubeflow-source",
) -> None:
    """Train a network on an image data set, evaluate it once on the test split, export and register it if it is good.

    Args:
        data: mnist, fashion-mnist, kmnist, cifar10, digits, or a https://, s3:// or file:// URI.
        image_size: Height and width in pixels to which images are brought (LeNet-5 reads 32).
        val_fraction: Share of the training images held out for validation, where the source has no val split.
        test_fraction: Share of the images held out for the test, where the source has no test split.
        max_bad_images: Broken pictures to skip and list before the step fails.
        network: lenet5, lenet5_1998, resnet18, mobilenet_v2 or another of docs/networks.md, or timm:NAME.
        activation: default (the network's own), sigmoid, tanh, relu, leaky_relu or leaky_clipped (slope 0.01 off 0..1).
        pooling: default (the network's own), max, avg or rms (root mean square) in place of max pooling.
        bias: Whether convolutions and linear layers have a bias.
        optimizer: muon, sgd (with Nesterov momentum) or adamw.
        learning_rate: Peak of the one-cycle learning rate.
        weight_decay: Decoupled weight decay of the weight matrices; biases are not decayed.
        batch_size: Images in a training batch.
        epochs: Passes over the training split.
        label_smoothing: Share of the target spread over all classes; lenet5_1998, whose loss is its own, has none.
        rotation: Random rotation of training images, in degrees to either side.
        shift: Random shift, in pixels to each side.
        scale: Random scaling, as a share to either side (0.1 is 90 % to 110 %).
        shear: Random shear, as the tangent of the angle to either side.
        ema_decay: Decay per step of the averaged weights that are evaluated and kept; 0 keeps the raw ones.
        patience: Epochs without a better validation accuracy before training stops; 0 never stops early.
        min_accuracy: Test accuracy below which the model is not accepted.
        min_recall: Recall of the weakest class below which the model is not accepted.
        seed: Seed of the split, the initial weights, the order of the images and the augmentation.
        threads: CPU threads of PyTorch; 0 takes what the CPU quota allows. Another number gives slightly other weights.
        store: s3://bucket/prefix for what outlives a run: prepared data, checkpoints, models; empty keeps nothing.
        model_name: Name under which an accepted model is registered in the store; empty takes the data set's name.
        significance: P-value of McNemar's test below which a better model takes the champion's place.
        checkpoint_seconds: Seconds between two checkpoints of the training, which go to the store.
        handover_mib: Size of a prepared data set, in MiB, above which the steps read it from the store piece by piece.
        gpus: GPUs for training, in a cluster; 0 trains on the CPU.
        gpu_resource: Kubernetes' name of the GPU resource, such as nvidia.com/gpu or amd.com/gpu.
        node_selector: Labels of the nodes to train on, such as {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}.
        tolerations: Taints that the training pod tolerates, such as [{"key": "nvidia.com/gpu", "operator": "Exists"}].
        train_cpu: CPUs of the training pod, in a cluster.
        train_memory: Memory of the training pod, in a cluster.
        s3_secret: Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without it, the pod's own identity counts.
        s3_config: ConfigMap with AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_CA_BUNDLE and ca.crt, as far as they are needed.
        source_secret: Secret with the same names, for a data source in an S3 of its own.
    """
    parameters = dict(locals())
    secrets = (s3_secret, s3_config, source_secret)
    ended = steps.finish(
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, **parameters
    )
    _place(ended, cpu=("100m", "1"), memory=("256Mi", "1Gi"), seconds=10 * MINUTE, secrets=secrets)
    ended.set_caching_options(False)
    with dsl.ExitHandler(ended, name="training"):
        resolved = steps.resolve(**parameters)
        _place(resolved, cpu=("100m", "1"), memory=("256Mi", "1Gi"), seconds=10 * MINUTE, secrets=secrets)
        resolved.set_caching_options(False)
        raw = steps.download(data=data, version=resolved.output)
        _place(raw, cpu=("250m", "2"), memory=("512Mi", "2Gi"), seconds=6 * HOUR, secrets=secrets)
        prepared = steps.preprocess(
            raw=raw.outputs["raw"],
            image_size=image_size,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            max_bad_images=max_bad_images,
            seed=seed,
            store=store,
            handover_mib=handover_mib,
        )
        _place(prepared, cpu=("1", "4"), memory=("2Gi", "4Gi"), seconds=6 * HOUR, secrets=secrets)
        trained = steps.train(
            dataset=prepared.outputs["dataset"],
            network=network,
            activation=activation,
            pooling=pooling,
            bias=bias,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
            epochs=epochs,
            label_smoothing=label_smoothing,
            rotation=rotation,
            shift=shift,
            scale=scale,
            shear=shear,
            ema_decay=ema_decay,
            patience=patience,
            seed=seed,
            threads=threads,
            store=store,
            checkpoint_seconds=checkpoint_seconds,
        )
        _place(trained, cpu=(train_cpu,) * 2, memory=(train_memory,) * 2, seconds=72 * HOUR, secrets=secrets)
        _on_gpu(trained, gpus, gpu_resource, node_selector, tolerations)
        evaluated = steps.evaluate(
            dataset=prepared.outputs["dataset"],
            model=trained.outputs["model"],
            min_accuracy=min_accuracy,
            min_recall=min_recall,
            threads=threads,
            store=store,
        )
        _place(evaluated, cpu=("1", "4"), memory=("2Gi", "4Gi"), seconds=2 * HOUR, secrets=secrets)
        with dsl.If(evaluated.outputs["Output"] == True, name="accepted"):  # noqa: E712
            exported = steps.export(
                dataset=prepared.outputs["dataset"],
                model=trained.outputs["model"],
                evaluation=evaluated.outputs["evaluation"],
                threads=threads,
            )
            _place(exported, cpu=("1", "4"), memory=("2Gi", "4Gi"), seconds=2 * HOUR, secrets=secrets)
            registered = steps.register(
                dataset=prepared.outputs["dataset"],
                model=trained.outputs["model"],
                evaluation=evaluated.outputs["evaluation"],
                package=exported.outputs["package"],
                store=store,
                model_name=model_name,
                significance=significance,
                threads=threads,
            )
            _place(registered, cpu=("500m", "2"), memory=("1Gi", "4Gi"), seconds=2 * HOUR, secrets=secrets)


if __name__ == "__main__":
    from runner.cli import main

    main(training)
