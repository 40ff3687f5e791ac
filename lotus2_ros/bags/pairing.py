"""Which measurements of a recording belong to which image: those nearest in time, as a running node pairs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

# An image waits so long, by the time of recording, for measurements whose driver takes longer than the camera's.
LOOKAHEAD_NS = 5 * 10**8


@dataclass(frozen=True, eq=False)  # messages hold arrays, which have no truth value
class Recorded:
    """A decoded message of a bag, with its stamp and the time of its recording in ns."""

    topic: str
    message: Any
    stamp_ns: int
    time_ns: int


@dataclass
class PairedImage:
    """An image with the measurements whose nearest image it is, and with all else that came before it is due."""

    image: Recorded
    measured: list[Recorded] = field(default_factory=list)  # nearest first
    others: list[Recorded] = field(default_factory=list)  # in the order of their recording


def pair(
    items: Iterable[Recorded], image_topic: str, measured_topics: frozenset[str], lookahead_ns: int = LOOKAHEAD_NS
) -> Iterator[PairedImage]:
    """The images in the order of ``items``, which is that of their recording, each with what belongs to it.

    Only the images of ``lookahead_ns`` are held in memory; with 0 each is released at once.
    """
    images: deque[Recorded] = deque()
    measured: list[Recorded] = []
    others: list[Recorded] = []

    def release() -> PairedImage:
        image = images.popleft()
        following = images[0] if images else None
        nearest = [item for item in measured if following is None or _is_nearer(item, image, following)]
        measured[:] = [item for item in measured if item not in nearest]
        paired = PairedImage(image, sorted(nearest, key=lambda item: abs(item.stamp_ns - image.stamp_ns)), list(others))
        others.clear()
        return paired

    for item in items:
        while images and item.time_ns - images[0].time_ns > lookahead_ns:
            yield release()
        if item.topic in measured_topics:
            measured.append(item)
        elif item.topic != image_topic:
            others.append(item)
        else:
            images.append(item)
            if not lookahead_ns:
                yield release()
    while images:
        yield release()


def _is_nearer(item: Recorded, image: Recorded, following: Recorded) -> bool:
    return abs(item.stamp_ns - image.stamp_ns) <= abs(item.stamp_ns - following.stamp_ns)
