"""Every network of the table, small: pytest tests/models/test_zoo.py"""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.models import catalogue, factory, saved_model, zoo
from components.shared.models.catalogue import ZOO
from components.shared.models.document import Architecture
from components.shared.models.layers import RootMeanSquarePool2d
from components.shared.models.pretrained import freeze_stages, load_pretrained, stages
from tests.models.documents import facts, history

ROOT = Path(__file__).parents[2]
LIGHT = ("resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "squeezenet1_1")
EVERY = [pytest.param(name, marks=[] if name in LIGHT else pytest.mark.slow) for name in ZOO]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network asks a hub for anything."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two pictures of 8 pixels are too little work to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def meta() -> Iterator[None]:
    """Networks with shapes and no weights, which cost nothing."""
    with torch.device("meta"):
        yield


def build(name: str, size: int, channels: int = 3, num_classes: int = 10, **arguments: Any) -> nn.Module:
    shape = [channels, size, size]
    return factory.build(
        Architecture.model_validate({"name": name, "num_classes": num_classes, "image_shape": shape, **arguments})
    )


def pictures(size: int, channels: int = 3, count: int = 2) -> torch.Tensor:
    return torch.rand(count, channels, size, size)


@pytest.mark.slow
@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("name", ZOO)
def test_a_network_has_its_published_number_of_parameters(name: str) -> None:
    network = build(name, ZOO[name].size, num_classes=1000)
    assert sum(p.numel() for p in network.parameters()) == ZOO[name].parameters
    assert network(pictures(ZOO[name].size)).shape == (2, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_network_learns_from_the_smallest_images_it_accepts(name: str) -> None:
    torch.manual_seed(0)
    size = ZOO[name].smallest
    network = build(name, size)
    logits = network(pictures(size))
    assert logits.shape == (2, 10)
    nn.functional.cross_entropy(logits, torch.tensor([3, 7])).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("inception") else [])
        for name, row in ZOO.items()
        if row.smallest > 8
    ],
)
def test_smaller_images_are_refused_and_would_not_work(name: str) -> None:
    size = ZOO[name].smallest - 1
    with pytest.raises(UserError, match=f"{size + 1} x {size + 1} pixels or more, not {size} x {size}; .*image_size"):
        build(name, size)
    with torch.device("meta"), pytest.raises(RuntimeError, match=r"too small|larger than|greater than"):
        zoo.build(name, num_classes=10, image_shape=[3, size, size])(pictures(size))


@pytest.mark.slow
@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("name", ZOO)
def test_a_network_accepts_grey_images_of_any_size(name: str) -> None:
    for made_for in (33, -(-ZOO[name].size // 3)):  # with the small stem, and with the published one
        assert build(name, made_for, channels=1)(pictures(made_for + 18, channels=1)).shape == (2, 10)


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("size, seen", [(32, 32), (74, 74), (75, 19)])
def test_the_stem_preserves_the_resolution_of_small_images(size: int, seen: int) -> None:
    network, shapes = build("resnet18", size).eval(), []
    network.get_submodule("layer1").register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[-2:]))
    network(pictures(size, count=1))
    assert shapes == [(seen, seen)]


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_images_may_have_any_number_of_channels(name: str, channels: int) -> None:
    assert build(name, 8, channels)(pictures(8, channels)).isfinite().all()


@pytest.mark.parametrize(
    "name, drops",
    [
        ("resnet18", False),
        ("mobilenet_v2", True),
        pytest.param("nasnet_a_mobile", True, marks=pytest.mark.slow),
        pytest.param("xception", True, marks=pytest.mark.slow),
    ],
)
def test_dropout_is_that_of_the_paper(name: str, drops: bool) -> None:
    network, images = build(name, 8), pictures(8)
    assert torch.equal(network(images), network(images)) is not drops


def test_equal_seeds_give_equal_weights() -> None:
    def seeded() -> dict[str, torch.Tensor]:
        torch.manual_seed(7)
        return build("mobilenet_v2", 32, channels=1).state_dict()

    first, second = seeded(), seeded()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in LIGHT else pytest.mark.slow)
        for name in ("mobilenet_v2", "densenet121", "nasnet_a_mobile")
    ],
)
def test_a_saved_network_gives_the_same_logits_when_loaded(tmp_path: Path, name: str) -> None:
    network = build(name, 32, channels=1)
    network(pictures(8, channels=1))  # so that batch norms have statistics
    save(tmp_path, name, network)
    again = saved_model.load(tmp_path).module
    images = pictures(8, channels=1)
    assert torch.equal(again(images), network.eval()(images))


def save(folder: Path, name: str, network: nn.Module) -> None:
    architecture = Architecture(name=name, num_classes=10, image_shape=[1, 32, 32])
    saved_model.save(folder, network, history(), **facts(architecture))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_an_activation_replaces_every_relu(name: str) -> None:
    network, head_inputs = build(name, 8, activation="tanh"), []
    kinds = {type(module) for module in network.modules()}
    assert nn.Tanh in kinds and not kinds & {nn.ReLU, nn.ReLU6}
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
    assert network(pictures(8)).isfinite().all()
    assert head_inputs[0].min() < 0


@pytest.mark.parametrize("pooling, kind", [("avg", nn.AvgPool2d), ("rms", RootMeanSquarePool2d), ("max", nn.MaxPool2d)])
def test_a_pooling_replaces_every_max_pooling(pooling: str, kind: type[nn.Module]) -> None:
    network = build("squeezenet1_1", 75, pooling=pooling)
    kinds = [type(m) for m in network.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
    assert kinds == [kind] * 3
    assert network(pictures(75)).shape == build("squeezenet1_1", 75)(pictures(75)).shape


def test_without_bias_no_convolution_or_linear_layer_has_one() -> None:
    network = build("squeezenet1_1", 32, bias=False)
    assert not [name for name in network.state_dict() if name.endswith("bias")]
    assert network(pictures(32)).shape == (2, 10)


@pytest.mark.parametrize(
    "name, argument, refusal",
    [
        (
            "resnet18",
            {"pooling": "avg"},
            "resnet18 for images of 32 x 32 pixels has no max pooling .*pooling=default",
        ),
        pytest.param(
            "nasnet_a_mobile",
            {"pooling": "rms"},
            "nasnet_a_mobile .* has no max pooling",
            marks=pytest.mark.slow,
        ),
        (
            "timm:efficientnet_b0",
            {"activation": "tanh"},
            "efficientnet_b0 has no ReLU that .*activation=default",
        ),
    ],
)
def test_what_a_network_cannot_replace_is_refused_by_name(name: str, argument: dict[str, Any], refusal: str) -> None:
    with pytest.raises(UserError, match=refusal):
        build(name, 32, **argument)


def test_rms_pooling_equals_scaled_lp_pooling() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(RootMeanSquarePool2d(2)(x), nn.LPPool2d(2, 2)(x) / 2)


def test_rms_pooling_of_a_black_border_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    RootMeanSquarePool2d(2)(x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.zeros_like(x))


def test_any_other_network_of_timm_can_be_built() -> None:
    network = build("timm:efficientnet_lite0", 32, channels=1, num_classes=4)
    assert network.training
    assert network(pictures(32, channels=1)).shape == (2, 4)


@pytest.mark.parametrize(
    "name, size, refusal",
    [
        ("resnet51", 32, r"'resnet51' \(did you mean resnet50 or .*\?\); give one of lenet5, .*, or timm:NAME"),
        ("timm:resnet8", 32, r"timm .* has no network named 'resnet8' \(did you mean resnet18 or"),
        ("timm:hf-hub:someone/net", 32, "has no network named 'hf-hub:someone/net'"),
        ("timm:vit_tiny_patch16_224", 32, "does not accept images of 3 x 32 x 32 .*image_size=224"),
    ],
)
def test_a_network_that_is_unknown_or_does_not_fit_is_refused(name: str, size: int, refusal: str) -> None:
    with pytest.raises(UserError, match=refusal):
        build(name, size)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CSATv2 is designed for 3-channel RGB input")
def test_a_network_for_colour_images_refuses_grey_ones() -> None:
    assert build("timm:csatv2", 64, channels=3).training
    with pytest.raises(UserError, match=r"^timm:csatv2 accepts only images of 3 channels, not of 1; "):
        build("timm:csatv2", 64, channels=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18's for 1000 classes, as others publish them: without the counters of batch norms."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    state = build("resnet18", 224, num_classes=1000).state_dict()
    save_file({name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}, path)
    return path


def test_pretrained_weights_are_loaded_except_a_differing_head(weights: Path) -> None:
    network = build("resnet18", 224)
    before = network.get_parameter("fc.weight").clone()
    assert load_pretrained(network, weights) == ["fc.bias", "fc.weight"]
    loaded = load_file(weights)
    assert torch.equal(network.get_parameter("fc.weight"), before)
    assert all(
        torch.equal(tensor, loaded[n]) for n, tensor in network.state_dict().items() if n in loaded and n[:3] != "fc."
    )


def test_a_pretrained_head_of_equal_classes_is_loaded(weights: Path) -> None:
    network = build("resnet18", 224, num_classes=1000)
    assert load_pretrained(network, weights, sha256_file(weights)) == []
    assert torch.equal(network.get_parameter("fc.weight"), load_file(weights)["fc.weight"])


@pytest.mark.parametrize("channels", [1, 6])
def test_pretrained_filters_fit_other_numbers_of_channels(weights: Path, channels: int) -> None:
    colour, other = build("resnet18", 224).eval(), build("resnet18", 224, channels).eval()
    load_pretrained(colour, weights)
    load_pretrained(other, weights)
    grey = pictures(80, channels=1)
    seen = other.get_submodule("conv1")(grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(seen, colour.get_submodule("conv1")(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


def test_weights_in_a_folder_are_checked_by_its_document(tmp_path: Path) -> None:
    network = build("squeezenet1_1", 32, channels=1)
    save(tmp_path, "squeezenet1_1", network)
    assert load_pretrained(build("squeezenet1_1", 32, channels=1), tmp_path) == []
    other = build("squeezenet1_1", 32, channels=1)
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="differs from its digest"):
        load_pretrained(network, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size, refusal",
    [
        ("resnet50", 224, r"another network: layer1\.0\.bn3\.bias \(nothing, here 256\), .* and \d+ more do not fit"),
        ("squeezenet1_1", 224, r"another network: .* do not fit"),
        ("resnet18", 32, r"64 x 3 x 7 x 7 as conv1\.weight, .* 64 x 3 x 3 x 3: .* larger image_size"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Path, name: str, size: int, refusal: str) -> None:
    with pytest.raises(UserError, match=refusal):
        load_pretrained(build(name, size), weights)


def test_a_missing_changed_or_malformed_file_is_refused(weights: Path, tmp_path: Path) -> None:
    network = build("squeezenet1_1", 32)
    with pytest.raises(UserError, match=r"model\.safetensors does not exist"):
        load_pretrained(network, tmp_path)
    with pytest.raises(UserError, match="differs from its digest 00"):
        load_pretrained(network, weights, "00")
    (tmp_path / "model.safetensors").write_bytes(b"pickle")
    with pytest.raises(UserError, match="is not a safetensors file"):
        load_pretrained(network, tmp_path)


@pytest.mark.slow
def test_training_does_not_change_frozen_stages() -> None:
    network = build("resnet18", 32)
    frozen = freeze_stages(network, 3)
    names = list(stages(network))
    assert names == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    for stage in frozen:
        stage.eval()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(pictures(32)).square().sum().backward()
    optimizer.step()
    changed = {
        name.split(".")[0] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {*names[3:], "fc"}


def test_parts_of_features_are_stages_and_too_many_are_refused() -> None:
    network = build("squeezenet1_1", 32)
    assert list(stages(network))[:2] == ["features.0", "features.3"]
    with pytest.raises(UserError, match=r"more than the 9 stages before the head: features\.0, "):
        freeze_stages(network, 99)


def test_the_catalogue_names_the_networks_of_the_factory() -> None:
    assert tuple(factory.NETWORKS) == catalogue.LENETS


@pytest.mark.slow
def test_lenet5_and_the_catalogue_import_only_what_they_need() -> None:
    code = """
        import sys
        import components.shared.models.catalogue
        assert "torch" not in sys.modules
        from components.shared.models import factory
        from tests.models.documents import LENET
        factory.build(LENET)
        assert not {"torchvision", "timm"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", re.sub(r"^ {8}", "", code, flags=re.M)], cwd=ROOT, check=True)


def test_the_documentation_lists_the_networks_of_the_catalogue() -> None:
    rows = re.findall(r"^\| `.*arxiv\.org.*$", (ROOT / "docs" / "networks.md").read_text(), re.M)
    assert rows == [
        f"| `{name}` | [{row.title}](https://arxiv.org/abs/{row.paper}) | {row.library} | {row.size} | {row.smallest} "
        f"| {row.parameters:,} | {row.top1:.1f} | {row.measured} |"
        for name, row in ZOO.items()
    ]
    assert "docs/networks.md" in (ROOT / "README.md").read_text()
