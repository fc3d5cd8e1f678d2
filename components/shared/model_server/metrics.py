"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from components.shared.evaluation.metrics import Probabilities
from components.shared.model_server.program import Served

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "serve_requests", "Inference requests by their outcome.", ["protocol", "code"], registry=registry
        )
        self.seconds = Histogram(
            "serve_request_seconds",
            "Time from a request's arrival to its answer.",
            ["protocol"],
            buckets=SECONDS,
            registry=registry,
        )
        self.failed_switches = Counter(
            "serve_failed_switches", "Looks for a new champion that failed; the old one serves on.", registry=registry
        )
        self.held_bytes = Gauge("serve_held_bytes", "Bytes of the REST requests in the server.", registry=registry)
        self._images = Counter("serve_images", "Images predicted.", ["version"], registry=registry)
        self._busy = Counter("serve_program_seconds", "Time in the program.", ["version"], registry=registry)
        self._batches = Histogram("serve_batch_images", "Images of a batch.", buckets=BATCHES, registry=registry)
        self._joined = Counter("serve_batched_requests", "Requests predicted along with others.", registry=registry)
        self._model = Gauge(
            "serve_model", "1 for the version that serves.", ["model", "version", "package_digest"], registry=registry
        )

    def serves(self, program: Served) -> None:
        """Note which program serves."""
        self._model.clear()
        self._model.labels(program.name, program.version, program.package.digest).set(1)

    def predicted(self, program: Served, requests: int, probabilities: Probabilities, seconds: float) -> None:
        """Count a batch."""
        self._images.labels(program.version).inc(len(probabilities))
        self._busy.labels(program.version).inc(seconds)
        self._batches.observe(len(probabilities))
        if requests > 1:
            self._joined.inc(requests)

    def text(self) -> bytes:
        """Return all of them in Prometheus' format."""
        return generate_latest(self._registry)
