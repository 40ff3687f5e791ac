"""The gate of the scale filter: which measurements are outliers."""

from __future__ import annotations

from lotus2_ros.scale.scale import Scale

# A measurement whose depths differ from the prediction by more than this factor is rejected,
GATE = 1.3
# unless this many in a row were. The gate closes only after as many measurements were accepted.
CONFIRMATIONS = 3


class Gate:
    """Rejects a metric measurement that differs from the prediction until several in a row differ."""

    def __init__(self) -> None:
        self._accepted = self._rejected = 0  # in a row

    def passes(self, measured: Scale, predicted: Scale | None, disparities: tuple[float, ...]) -> bool:
        """Whether a measurement agrees with the prediction at ``disparities``, or enough in a row disagree."""
        if predicted is None or not predicted.metric or self._accepted < CONFIRMATIONS:
            return True
        new, old = ([s.scale * d + s.shift for d in disparities] for s in (measured, predicted))
        agrees = all(1 / GATE <= n / max(o, 1e-9) <= GATE for n, o in zip(new, old, strict=True))
        self._rejected = 0 if agrees else self._rejected + 1
        return agrees or self._rejected >= CONFIRMATIONS

    def accept(self, predicted: Scale | None) -> bool:
        """Count a measurement that passed. Returns whether it starts anew, because it replaces the prediction."""
        starts_anew = predicted is None or not predicted.metric or self._rejected > 0
        self._accepted, self._rejected = 1 if starts_anew else self._accepted + 1, 0
        return starts_anew
