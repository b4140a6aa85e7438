"""What a server counts, in the form of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of a server; nothing in them tells what anybody wrote."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "nanogpt2_requests", "Requests, by path and status.", ("path", "status"),
            registry=self.registry,
        )  # fmt: skip
        self.seconds = self._histogram("request_seconds", "Until a completion was answered.")
        self.first_token = self._histogram("first_token_seconds", "Until its first token.")
        self.tokens = self._counter("tokens", "Tokens that were drawn.")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.running = self._gauge("running", "Answers that are being drawn.")
        self.waiting = self._gauge("waiting", "Answers in the queue.")
        self.gone = self._counter("gone", "Requests whose client went away before the answer.")

    def _counter(self, name: str, told: str) -> Counter:
        return Counter(f"nanogpt2_{name}", told, ("model",), registry=self.registry)

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(f"nanogpt2_{name}", told, ("model",), registry=self.registry)

    def _histogram(self, name: str, told: str) -> Histogram:
        return Histogram(
            f"nanogpt2_{name}", told, ("model",), buckets=SECONDS, registry=self.registry
        )

    def count_requests(self) -> int:
        """Return how many requests have been answered."""
        (family,) = self.requests.collect()
        counts = (each.value for each in family.samples if each.name.endswith("_total"))
        return int(sum(counts))

    def text(self) -> bytes:
        """Return all counts."""
        return generate_latest(self.registry)


class ModelMetrics:
    """The counters of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.seconds = metrics.seconds.labels(model)
        self.first_token = metrics.first_token.labels(model)
        self.tokens = metrics.tokens.labels(model)
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self.running = metrics.running.labels(model)
        self.waiting = metrics.waiting.labels(model)
        self.gone = metrics.gone.labels(model)
