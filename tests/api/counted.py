"""What metrics have counted since a moment."""

from infra import metrics


class Counted:
    """A counter's growth by label since this was made."""

    def __init__(self, name: str, label: str) -> None:
        self._name, self._label = name, label
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {
            sample.labels[self._label]: sample.value
            for family in metrics.REGISTRY.collect()
            for sample in family.samples
            if sample.name == self._name
        }

    def __call__(self) -> dict[str, int]:
        """Growth of those that have grown."""
        grown = {label: int(value - self._before.get(label, 0)) for label, value in self._now().items()}
        return {label: growth for label, growth in grown.items() if growth}
