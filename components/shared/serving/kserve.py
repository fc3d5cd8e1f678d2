"""KServe in a namespace: which mode it has, what it lacks, one InferenceService, its traffic and its pods."""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import NamedTuple

from components.shared.core.errors import UserError
from components.shared.serving import knative, standard
from components.shared.serving.inference_service import (
    GROUP,
    MODEL_FORMAT,
    PLURAL,
    PROTOCOL,
    SERVICE_ACCOUNT,
    VERSION,
    Object,
    Predictor,
    service_name,
)
from components.shared.serving.kubernetes_api import Conflict, KubernetesApi, Missing, Refused

MODES: dict[str, ModuleType] = {"standard": standard, "knative": knative}
KNATIVE_NAMES = ("Knative", "Serverless")  # of the mode, in a status: since 0.16, and before
INSTALL = "install KServe: https://kserve.github.io/website/docs/admin-guide/overview"
MANIFESTS = "manifests/serving"
PROFILE_LABEL, PROFILE = "app.kubernetes.io/part-of", "kubeflow-profile"
CONTROL_PLANE = "control-plane"  # KServe's webhook leaves pods of namespaces with this label alone
ENDPOINT_ANNOTATION = "serving.kserve.io/s3-endpoint"
SEAWEEDFS = "seaweedfs"
MODEL_PORT = 8080  # of KServe's runtimes
ATTEMPTS = 20  # at a change, while KServe writes the object's status


class Pods(NamedTuple):
    """Where the model server of a predictor listens: a port of each of the pods with these labels."""

    namespace: str
    selector: str
    port: int | str
    address: tuple[str, int] | None  # of the Kubernetes Service before them, for pods of the cluster


class Kserve:
    """KServe, as it is found in one namespace."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self._notes: list[str] = []

    @property
    def notes(self) -> list[str]:
        """What could not be found out, or may go wrong, each in a line."""
        return list(dict.fromkeys(self._notes))

    def find_mode(self, wanted: str | None) -> str:
        """Return `standard` or `knative`: the one that is wanted, else by what the cluster has.

        Raises UserError if KServe is not installed, or not the one that is wanted.
        """
        groups = {one["name"] for one in self.api.get("/apis").get("groups", [])}
        if GROUP not in groups:
            raise UserError("KServe is not installed in this cluster", INSTALL)
        has_knative = "serving.knative.dev" in groups
        if wanted == "knative" and not has_knative:
            raise UserError("this cluster has no Knative Serving", "leave --mode knative out, or install it")
        return wanted or ("knative" if has_knative else "standard")

    def check_runtime(self, name: str) -> None:
        """Raise UserError unless a ServingRuntime, of the namespace or of the cluster, serves ONNX by v2."""
        found = self._runtime(name)
        if not found:
            return
        spec = found["spec"]
        formats = [one["name"] for one in spec.get("supportedModelFormats", [])]
        protocols = spec.get("protocolVersions") or ["v1"]
        runtime = f"{found['kind']} {name}"
        if spec.get("disabled"):
            raise UserError(f"{runtime} is disabled", f"name another one with --runtime{self._suitable()}")
        if MODEL_FORMAT not in formats or PROTOCOL not in protocols:
            message = f"{runtime} does not serve {MODEL_FORMAT} by protocol {PROTOCOL}"
            raise UserError(message, f"name another one with --runtime{self._suitable()}")

    def _runtime(self, name: str) -> Object | None:
        """Return a runtime; None if it may not be read. Raises UserError if there is none of that name."""
        for path in self._runtime_paths():
            try:
                return self.api.get(f"{path}/{name}")
            except Missing:
                continue
            except Refused as error:
                self._notes.append(f"whether there is a runtime {name} is not known: {error.message}")
                return None
        raise UserError(
            f"there is neither a ServingRuntime {name} in namespace {self.namespace} nor a ClusterServingRuntime of "
            "that name",
            f"install KServe's own runtimes, or name one that serves ONNX by v2 with --runtime{self._suitable()}",
        )

    def _runtime_paths(self) -> tuple[str, str]:
        root = f"/apis/{GROUP}/v1alpha1"
        return f"{root}/namespaces/{self.namespace}/servingruntimes", f"{root}/clusterservingruntimes"

    def _suitable(self) -> str:
        """Return the runtimes that serve ONNX by v2, for the end of a sentence; empty if there are none."""
        names = sorted({one["metadata"]["name"] for path in self._runtime_paths() for one in self._listed(path)})
        return f" ({', '.join(names)})" if names else ""

    def _listed(self, path: str) -> Iterator[Object]:
        try:
            items = self.api.get(path).get("items", [])
        except Refused:
            return
        for one in items:
            formats = [found["name"] for found in one["spec"].get("supportedModelFormats", [])]
            if MODEL_FORMAT in formats and PROTOCOL in one["spec"].get("protocolVersions", []):
                yield one

    def check_namespace(self, kfp_namespace: str = "kubeflow") -> None:
        """Raise UserError if KServe does not serve in this namespace, or the service account of models is missing.

        What only may go wrong becomes a note.
        """
        try:
            labels = self.api.get(f"/api/v1/namespaces/{self.namespace}")["metadata"].get("labels", {})
        except Missing:
            raise UserError(
                f"there is no namespace {self.namespace}", f"kubectl create namespace {self.namespace}"
            ) from None
        except Refused as error:
            self._notes.append(f"whether models may be served in namespace {self.namespace} is not known: {error}")
            labels = {}
        if CONTROL_PLANE in labels:
            raise UserError(
                f"KServe loads no model in namespace {self.namespace}, which has the label {CONTROL_PLANE}",
                "serve in another one: --serving-namespace",
            )
        if may_be_kept_out(self.namespace, labels, self._annotations(), kfp_namespace):
            self._notes.append("; ".join(seaweedfs_note(self.namespace)))

    def _annotations(self) -> dict[str, str]:
        """Return the annotations by which models are loaded; none if they may not be read. Raises as above."""
        try:
            account = self.api.get(f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{SERVICE_ACCOUNT}")
            annotations = account["metadata"].get("annotations", {})
            for secret in account.get("secrets", []):
                found = self.api.get(f"/api/v1/namespaces/{self.namespace}/secrets/{secret['name']}")
                annotations = annotations | found["metadata"].get("annotations", {})
            return dict(annotations)
        except Missing as error:
            remedy = f"kubectl apply -n {self.namespace} -k {MANIFESTS}, and fill the Secret as docs/serving.md says"
            what = "ServiceAccount" if "serviceaccounts" in error.message else "Secret"
            raise UserError(
                f"there is no {what} {SERVICE_ACCOUNT} in namespace {self.namespace}, with which models are loaded",
                remedy,
            ) from None
        except Refused as error:
            self._notes.append(f"from which S3 server models are loaded is not known: {error.message}")
            return {}


class Service:
    """One InferenceService, in a mode; changes of others since it was last read are not overwritten."""

    def __init__(self, kserve: Kserve, name: str) -> None:
        self._kserve, self._api, self.name = kserve, kserve.api, name
        self._collection = f"/apis/{GROUP}/{VERSION}/namespaces/{kserve.namespace}/{PLURAL}"
        self._path = f"{self._collection}/{name}"
        self._generation: int | None = None

    @property
    def text(self) -> str:
        """How messages call it."""
        return f"InferenceService {self.name} of namespace {self._kserve.namespace}"

    def read(self) -> Object | None:
        """Return the object; None if there is none. Raises UserError if its spec is another's since the last change."""
        try:
            found = self._api.get(self._path)
        except Missing:
            if self._generation is not None:
                raise UserError(f"{self.text} was deleted meanwhile", "deploy again if that is right") from None
            return None
        generation = found["metadata"]["generation"]
        if self._generation not in (None, generation):
            raise UserError(
                f"{self.text} was changed by somebody else meanwhile", "see --status, and deploy again if it is right"
            )
        self._generation = generation
        return found

    def create(self, body: Object) -> Object:
        """Create the object."""
        with_new_fields = body["spec"]["predictor"].get("name")
        try:
            found = self._api.create(self._collection, body)
        except Conflict:
            raise UserError(f"{self.text} was made by somebody else meanwhile", "deploy again") from None
        except Refused as error:
            raise _too_old(error) from None
        if with_new_fields and not found["spec"]["predictor"].get("name"):
            self._api.delete(self._path, found["metadata"]["uid"])
            raise UserError(standard.TOO_OLD, standard.UPGRADE)
        self._generation = found["metadata"]["generation"]
        return found

    def change(self, patch: Object) -> Object:
        """Change the object as it was last read, and return it."""
        for _ in range(ATTEMPTS):
            found = self.read()
            assert found
            metadata = {**patch.get("metadata", {}), "resourceVersion": found["metadata"]["resourceVersion"]}
            try:
                found = self._api.patch(self._path, patch | {"metadata": metadata})
            except Conflict:
                continue
            except Refused as error:
                raise _too_old(error) from None
            self._generation = found["metadata"]["generation"]
            if patch["spec"].get("canary") and not found["spec"].get("canary"):
                raise UserError(standard.TOO_OLD, standard.UPGRADE)
            return found
        raise UserError(f"{self.text} changes all the time", "see what else writes to it, and deploy again")

    def delete(self, uid: str) -> None:
        """Delete the object that this process has made, if it is there still."""
        try:
            self._api.delete(self._path, uid)
        except (Missing, Conflict):
            return

    def weights(self) -> dict[str, int] | None:
        """Return the weights of the HTTPRoute by Kubernetes Service; None if it may not be read.

        Raises UserError if there is no route: without the Gateway API no share of the traffic can be given.
        """
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{self._kserve.namespace}/httproutes/{self.name}"
        try:
            rules = self._api.get(path)["spec"]["rules"]
        except Missing:
            raise UserError(
                f"{self.text} has no HTTPRoute, without which a canary gets no share of the traffic",
                "set enableGatewayApi in KServe's ConfigMap inferenceservice-config, or give --canary 0, which "
                "promotes right after the smoke test",
            ) from None
        except Refused:
            return None
        return {one["name"]: one.get("weight", 1) for rule in rules for one in rule["backendRefs"]}

    def pods_of(self, mode: ModuleType, service: Object, predictor: Predictor) -> Pods:
        """Return where the model server of a predictor listens."""
        selector = mode.selector(service, predictor)
        if mode is knative:  # a revision has no Service of a name that is documented
            return Pods(self._kserve.namespace, selector, MODEL_PORT, None)
        name = service_name(self.name, predictor.name)
        spec = self._api.get(f"/api/v1/namespaces/{self._kserve.namespace}/services/{name}")["spec"]
        port = spec["ports"][0]
        of_pods = port.get("targetPort") or port["port"]
        is_headless = spec.get("clusterIP") == "None"  # its name leads to the pods, and so to their port
        address = f"{name}.{self._kserve.namespace}.svc", of_pods if is_headless else port["port"]
        return Pods(self._kserve.namespace, selector, of_pods, address)

    def why_pods_wait(self, mode: ModuleType, service: Object, predictor: Predictor) -> str:
        """Return why the pods of a predictor do not serve; empty if they do not tell, or may not be read."""
        path = f"/api/v1/namespaces/{self._kserve.namespace}/pods"
        try:
            pods = self._api.get(path, labelSelector=mode.selector(service, predictor)).get("items", [])
        except Refused:
            return ""
        return next((reason for pod in pods for reason in _reasons(pod)), "")


def may_be_kept_out(
    namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str], kfp_namespace: str
) -> bool:
    """Return whether a NetworkPolicy of KFP keeps a namespace from the store, by the annotations of its Secret."""
    host = annotations.get(ENDPOINT_ANNOTATION, "").partition(":")[0]
    is_kfps = host.removesuffix(".cluster.local").removesuffix(".svc") == f"{SEAWEEDFS}.{kfp_namespace}"
    return is_kfps and labels.get(PROFILE_LABEL) != PROFILE and namespace != kfp_namespace


def seaweedfs_note(namespace: str) -> tuple[str, str]:
    """Return what keeps a namespace from KFP's store, and the remedy."""
    return (
        f"KFP's SeaweedFS lets in only namespaces with the label {PROFILE_LABEL}={PROFILE}, and KFP's own, where "
        "NetworkPolicies are enforced",
        f"kubectl label namespace {namespace} {PROFILE_LABEL}={PROFILE}",
    )


def mode_of(service: Object) -> str | None:
    """Return the mode in which KServe runs an InferenceService; None if it does not tell yet."""
    told = service.get("status", {}).get("deploymentMode")
    return None if not told else "knative" if told in KNATIVE_NAMES else "standard"


def _too_old(error: Refused) -> UserError:
    """Return what a refusal means: that fields of canaries are not known, or what it says."""
    unknown = 'unknown field "spec.canary' in error.reason or 'unknown field "spec.predictor.name' in error.reason
    return UserError(standard.TOO_OLD, standard.UPGRADE) if unknown else error


def _reasons(pod: Object) -> Iterator[str]:
    """Yield why a pod does not serve: the last line of a container that failed, what it waits for, or no node.

    What failed before a container that runs now is long past.
    """
    status = pod.get("status", {})
    for one in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = one.get("state", {})
        waiting = state.get("waiting") or {}
        ended = state.get("terminated") or (waiting and one.get("lastState", {}).get("terminated")) or {}
        lines = str(ended.get("message") or "").strip().splitlines()
        if ended.get("exitCode") and lines:
            yield f"{one['name']}: {lines[-1]}"
        elif waiting.get("message"):
            yield f"{one['name']}: {waiting.get('reason')}: {waiting['message']}"
    for one in status.get("conditions", []):
        if one["type"] == "PodScheduled" and one["status"] == "False" and one.get("message"):
            yield str(one["message"])
