"""The layers of the code: imports go one way. Read from the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.step_table import STEPS
from tests.repository.documents import ROOT, read

SOURCES = [ROOT / "pipeline.py", *sorted((ROOT / "components").rglob("*.py")), *sorted((ROOT / "runner").rglob("*.py"))]
MODULES = tuple(step.module for step in STEPS)
# What each layer of components/shared/ may import besides itself.
SHARED = {
    "core": (),
    "container_images": ("core",),
    "storage": ("core",),
    "data": ("core", "storage"),
    "models": ("core",),
    "parameters": ("core", "storage.endpoint", "data.layout.reading", "data.sources", "models.catalogue"),
    "training": ("core", "storage", "data", "models", "parameters"),
    "evaluation": ("core", "data", "models", "parameters.evaluation"),
    "registry": ("core", "storage", "data", "evaluation", "parameters"),
    "prediction": ("core", "storage", "data", "evaluation", "registry", "parameters"),
    "serving": ("core", "storage", "evaluation", "registry", "parameters"),
    "model_server": ("core", "storage", "data", "evaluation", "registry", "prediction"),
}
# What each module of components/shared/parameters/ may import of the others.
KINDS = ("preparation", "training", "evaluation", "registration", "sweep", "prediction", "pods")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "recipe": (),
    "common": ("recipe",),
    "kubernetes_values": (),
    **{kind: ("recipe", "common") for kind in KINDS},
    "pods": ("recipe", "common", "kubernetes_values"),
    "deployment": ("recipe", "kubernetes_values"),
    "registration": ("recipe", "common", "deployment", "evaluation"),
    "table": ("recipe", "common", *KINDS),
    "form": ("recipe", "sweep", "table"),
    "help": ("recipe", "common", *KINDS, "table"),
}
# What each folder of runner/ may import besides itself, components/ and the modules that stand beside the folders.
RUNNER: dict[str, tuple[str, ...]] = {
    "verbs": (),
    "local": (),
    "cluster": (),
    "images": (),
    "control": ("cluster", "doctor"),
    "registry": ("local", "cluster"),
    "demo": ("registry",),
    "schedules": ("cluster",),
    "prediction": ("registry",),
    "serving": ("local", "cluster", "registry"),
    "doctor": ("cluster", "images"),
}
BESIDE = (
    *(path.stem for path in sorted((ROOT / "runner").glob("*.py")) if path.stem not in ("__init__", "cli")),
    "verbs",
)
LAYERS: dict[str, tuple[str, ...]] = {
    "pipeline": ("components", "runner.cli", "runner.kfp_patches", "runner.pods"),
    "components.__init__": (),
    "components.step_table": (),
    "components.ports": MODULES,
    "components.steps": (
        "components.entrypoints.run_step",
        "components.ports",
        "components.shared.container_images",
        "components.shared.core.code_digest",
        "components.step_table",
    ),
    "components.entrypoints": ("components.shared",),
    **{module: ("components.shared",) for module in MODULES},
    "components.prediction.__init__": (),
    **{
        f"components.shared.{layer}": tuple(f"components.shared.{other}" for other in others)
        for layer, others in SHARED.items()
        if layer != "parameters"
    },
    **{
        f"components.shared.parameters.{module}": (
            *(f"components.shared.parameters.{other}" for other in others),
            *(f"components.shared.{layer}" for layer in SHARED["parameters"]),
        )
        for module, others in PARAMETERS.items()
    },
    "runner.cli": ("components", "runner"),
    **{f"runner.{module}": ("components", *(f"runner.{other}" for other in BESIDE)) for module in BESIDE[:-1]},
    **{
        f"runner.{folder}": ("components", *(f"runner.{other}" for other in (*BESIDE, *others)))
        for folder, others in RUNNER.items()
    },
}
# The only users of a package.
PACKAGES = {
    "kfp": ("pipeline", "components.steps", "components.ports", "components.entrypoints.run_step", "runner"),
    "kfp_server_api": ("runner",),
    "kubeflow": ("components.shared.training.distributed.trainjob",),
    "kubernetes": (
        "pipeline",
        "components.shared.training.distributed.trainjob",
        "components.shared.serving.kubernetes_api",
        "runner",
    ),
    "aiohttp": ("components.shared.model_server",),
    "grpc": ("components.shared.model_server",),
    "tritonclient": ("components.shared.model_server",),
    "minio": ("components.shared.storage",),
    "pydantic": ("components.shared",),
    "pydantic_core": ("components.shared.core", "components.shared.parameters"),
}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_in(name: str, layers: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{layer}.") for layer in layers)


def _layer(module: str) -> str:
    (layer,) = [layer for layer in LAYERS if _is_in(module, (layer,))] or [f"{module}.__init__"]
    return layer


def _breaches(module: str, imports: Iterator[str] | list[str]) -> set[str]:
    """Return what a module must not import of what it imports."""
    layer = _layer(module)
    allowed = (layer, *LAYERS.get(layer, ()))
    ours = {name for name in imports if name.split(".")[0] in ("components", "runner", "pipeline", "tests", "bench")}
    packages = {name for name in imports if not _is_in(module, PACKAGES.get(name.split(".")[0], (module,)))}
    return {name for name in ours if not _is_in(name, allowed)} | packages


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    assert not _breaches(_name(path), list(_imports(ast.parse(path.read_text()))))


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("components.train", "kfp.dsl"),
        ("components.train", "components.download.download"),
        ("components.train", "components.steps"),
        ("components.train", "components.ports"),
        ("components.steps", "components.train"),
        ("components.ports", "components.shared.parameters.training"),
        ("components.entrypoints.katib_trial", "kfp.dsl"),
        ("components.download", "minio.Minio"),
        ("components.entrypoints.katib_trial", "components.train"),
        ("components.shared.data.sources.idx", "components.train"),
        ("components.shared.storage.client", "components.shared.parameters.common.StoreUri"),
        ("components.shared.data.dataset", "components.shared.parameters.preparation.Preparation"),
        ("components.shared.models.factory", "components.shared.parameters.training"),
        ("components.shared.core.files", "components.shared.storage.client"),
        ("components.shared.models.zoo", "components.shared.training"),
        ("components.shared.parameters.training", "components.shared.models.factory"),
        ("components.shared.parameters.training", "components.shared.training.engine"),
        ("components.shared.parameters.common", "components.shared.storage.client"),
        ("components.shared.parameters.recipe", "components.shared.parameters.common"),
        ("components.shared.parameters.evaluation", "components.shared.parameters.training.Settings"),
        ("components.shared.parameters.table", "components.shared.parameters.form"),
        ("components.shared.parameters.form", "kfp.dsl"),
        ("components.shared.parameters.table", "components.resolve"),
        ("runner.summary", "pydantic.BaseModel"),
        ("runner.parameters", "pydantic_core.PydanticCustomError"),
        ("components.shared.evaluation.metrics", "components.shared.registry"),
        ("components.shared.training.loop", "components.shared.evaluation"),
        ("components.shared.registry.versions", "components.shared.serving"),
        ("components.shared.serving.rollout", "kubernetes.client"),
        ("runner.cluster.run", "runner.local.run"),
        ("runner.local.run", "runner.cluster"),
        ("runner.graphs", "runner.cli"),
        ("runner.failures", "runner.local.steps"),
        ("runner.doctor.pods.nodes", "pipeline"),
        ("runner.cluster.logs", "runner.control.stop"),
        ("pipeline", "runner.local.run"),
        ("runner.terminal", "tests.conftest"),
    ],
)
def test_a_breach_is_noticed(module: str, imported: str) -> None:
    assert _breaches(module, [imported]) == {imported}


def test_every_module_belongs_to_a_layer() -> None:
    homeless = {_name(path) for path in SOURCES if path.stem != "__init__" and _layer(_name(path)) not in LAYERS}
    assert homeless == set()


def test_architecture_has_the_same_layers() -> None:
    rows = [line for line in read("docs/architecture.md").splitlines() if line.startswith("| `")]
    documented = {tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows}
    for layer, others in SHARED.items():
        assert (f"`{layer}`", ", ".join(f"`{other}`" for other in others) or "nothing of ours") in documented


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [*(step.module for step in STEPS if step.image in ("data", "serve")), "components.register"]
)
def test_steps_without_torch_do_not_load_it(step: str) -> None:
    code = f"import sys, {step}; print('torch' in sys.modules, 'kfp' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "False False\n"
