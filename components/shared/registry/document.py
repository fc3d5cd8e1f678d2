"""The documents of the registry: of a model (`register.json`), of a version, and of a registration."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.shared.core.document import (
    Count,
    Document,
    Fingerprint,
    Items,
    JsonObject,
    Names,
    Number,
    Part,
    Sha256,
    Share,
    Size,
    Time,
    require,
)
from components.shared.evaluation.exported_model import Tensor

State = Literal["claimed", "complete", "pruning", "pruned"]
Action = Literal["register", "promote", "rollback"]


class VersionEntry(Part, frozen=False):
    """A version in the registry document; `pruning` while its files are being deleted."""

    version: Size
    package_digest: Sha256
    created: Time  # when it was reserved last
    state: State
    accuracy: Share
    images: Size
    test_split_digest: Sha256
    model_digest: Sha256
    run_id: str


class Figures(Part):
    """A challenger against a champion on the same test images."""

    champion: Size  # its version
    champion_accuracy: Share
    challenger_accuracy: Share
    images: Size
    n01: Count  # images that only the challenger has right
    n10: Count  # images that only the champion has right
    p_value: Share
    significance: Share
    rescored: bool  # whether the champion had to be scored on this test split
    decided_before: Count  # how often this test split had decided between two versions

    @property
    def challenger_wins(self) -> bool:
        """Return whether the challenger is better by more than chance."""
        return self.n01 > self.n10 and self.p_value < self.significance

    @property
    def reason(self) -> str:
        """Return the decision in words."""
        against = f"{self.challenger_accuracy:.2%} against {self.champion_accuracy:.2%} of version {self.champion}"
        if self.n01 <= self.n10:
            return f"{against}, which is not better"
        if self.p_value >= self.significance:
            return f"{against}, p = {self.p_value:.2g}, which may be chance (significance {self.significance:g})"
        return f"{against}, p = {self.p_value:.2g}"


class Decision(Part):
    """A decision about the champion, and the version that it was about."""

    time: Time
    action: Action
    version: Size
    champion_before: Size | None
    champion_after: Size | None
    test_split_digest: Sha256  # of the version
    figures: Figures | None  # None if the two were not compared
    reason: str


class RegistryDocument(Document, frozen=False):
    """`register.json`: the versions of a model, its champion, and every decision about it."""

    FORMAT = "torch2kubeflow/register"
    REMEDY = "restore it from a backup, or delete it and register the packages again"

    name: str
    champion: Size | None
    versions: Items[VersionEntry]  # numbered from 1, each of a package of its own
    decisions: Items[Decision]

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        numbers = [entry.version for entry in self.versions]
        require("versions", numbers == [*range(1, len(numbers) + 1)])
        require("versions", len({entry.package_digest for entry in self.versions}) == len(numbers))
        complete = {entry.version for entry in self.versions if entry.state == "complete"}
        require("champion", self.champion is None or self.champion in complete)
        return self


class DataOrigin(Part):
    """Where the images of a dataset come from, and how they were prepared."""

    name: str
    source: str
    raw_digest: str
    parameters: JsonObject


class Provenance(Part):
    """What a version was made from."""

    data: DataOrigin
    dataset_digest: Sha256
    test_split_digest: Sha256
    model_digest: Sha256
    parameters: JsonObject  # of the training
    registration: JsonObject = Field(default={})  # those by which it was judged, exported, registered and served
    seed: Count
    threads: Count
    torch: str  # its version
    device: str
    code_version: str  # of the training
    revision: str  # in git
    image: str  # of the container
    run_id: str
    time: Time  # of the registration


class VersionDocument(Document):
    """`version.json`: the files of a version, and what they are."""

    FORMAT = "torch2kubeflow/version"
    REMEDY = "register its package again"
    MAX_BYTES = 2**20

    name: str  # of the model
    version: Size
    package_digest: Sha256
    created: Time
    files: dict[str, Fingerprint]
    metrics: dict[str, Number]
    classes: Names
    input: Tensor
    output: Tensor
    samples: Count = 0  # test images that are kept, with what the model predicts of them
    provenance: Provenance


class RegistrationDocument(Document):
    """`registration.json`: what became of a model; it has no version and URI without a store, or if not accepted."""

    FORMAT = "torch2kubeflow/registration"
    REMEDY = "register the package again"

    name: str  # of the model
    version: Size | None
    is_champion: bool
    reason: str
    uri: str | None
    package_digest: Sha256 | None  # of an accepted model
    figures: Figures | None
