"""The training pipeline: resolve, download, preprocess, train, evaluate and, where the verdict is good, export.

python pipeline.py local data=mnist epochs=3     # compile it and run it on this machine
python pipeline.py compile                       # write build/pipeline.yaml for the Kubeflow UI
"""

from kfp import dsl

from components import steps


@dsl.pipeline(name="torch2kubeflow-training", description="From images to an evaluated, exported classifier.")
def training(
    data: str = "mnist",
    image_size: int = 32,
    val_fraction: float = 0.1,
    test_fraction: float = 0.15,
    max_bad_images: int = 0,
    activation: str = "relu",
    pooling: str = "max",
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
) -> None:
    """Train LeNet-5 on an image data set, evaluate it once on the test split, and export it if it is good enough.

    Args:
        data: mnist, fashion-mnist, kmnist, cifar10, digits, or a https:// or file:// URI of an archive or folder.
        image_size: Height and width in pixels to which images are brought (LeNet-5 reads 32).
        val_fraction: Share of the training images held out for validation, where the source has no val split.
        test_fraction: Share of the images held out for the test, where the source has no test split.
        max_bad_images: Broken pictures to skip and list before the step fails.
        activation: sigmoid, tanh, relu, leaky_relu or leaky_clipped (slope 0.01 below 0 and above 1).
        pooling: max or avg.
        bias: Whether convolutions and linear layers have a bias.
        optimizer: muon, sgd (with Nesterov momentum) or adamw.
        learning_rate: Peak of the one-cycle learning rate.
        weight_decay: Decoupled weight decay of the weight matrices; biases are not decayed.
        batch_size: Images in a training batch.
        epochs: Passes over the training split.
        label_smoothing: Share of the target spread over all classes.
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
    """
    resolved = steps.resolve(
        data=data,
        image_size=image_size,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        max_bad_images=max_bad_images,
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
        min_accuracy=min_accuracy,
        min_recall=min_recall,
        seed=seed,
        threads=threads,
    )
    resolved.set_caching_options(False)
    raw = steps.download(data=data, version=resolved.output)
    prepared = steps.preprocess(
        raw=raw.outputs["raw"],
        image_size=image_size,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        max_bad_images=max_bad_images,
        seed=seed,
    )
    trained = steps.train(
        dataset=prepared.outputs["dataset"],
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
    )
    evaluated = steps.evaluate(
        dataset=prepared.outputs["dataset"],
        model=trained.outputs["model"],
        min_accuracy=min_accuracy,
        min_recall=min_recall,
        threads=threads,
    )
    with dsl.If(evaluated.outputs["Output"] == True, name="accepted"):  # noqa: E712
        steps.export(
            dataset=prepared.outputs["dataset"],
            model=trained.outputs["model"],
            evaluation=evaluated.outputs["evaluation"],
            threads=threads,
        )


if __name__ == "__main__":
    from runner.cli import main

    main(training)
