"""Topics of a recording that go into the output as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from lotus2_ros.bags.inputs import find_bag
from lotus2_ros.bags.reader import BagMessage, BagReader, absolute, open_reader
from lotus2_ros.bags.writer import BagWriter
from lotus2_ros.config.errors import InputError
from lotus2_ros.config.output import OutputError


class KeptTopics:
    """Copies messages into a bag in the order of their recording, between the frames."""

    def __init__(self, reader: BagReader, topics: Sequence[str], skip: int) -> None:
        self.count = skip  # messages copied so far
        self._reader = reader
        self._items = islice(reader.messages(topics), skip, None)
        self._next = next(self._items, None)
        self._failed: set[str] = set()

    def copy_until(self, time_ns: int | None, bag: BagWriter) -> list[str]:
        """All up to this time of recording, None: all that are left. A line for each topic that cannot be copied."""
        problems = []
        while self._next is not None and (time_ns is None or self._next.time_ns <= time_ns):
            item, self._next = self._next, next(self._items, None)
            self.count += 1
            if item.topic not in self._failed:
                try:
                    self._copy(item, bag)
                except (InputError, OutputError) as error:
                    self._failed.add(item.topic)
                    problems.append(f"not kept: {error}")
        return problems

    def _copy(self, item: BagMessage, bag: BagWriter) -> None:
        bag.write_raw(item.topic, item.kind, self._reader.cdr(item), item.time_ns, item.definition, item.digest)


@contextmanager
def kept_topics(
    path: Path, topics: Sequence[str] | None, used: Sequence[str], is_written: Callable[[str], bool], skip: int
) -> Iterator[KeptTopics | None]:
    """``topics`` of a bag; empty: all but those ``used``, which are in the output under other names; None: none.

    ``is_written``: whether the output has a topic of this name anyway. ``skip`` messages were copied by an interrupted
    run. Raises InputError on a topic that the bag does not have or that cannot be kept.
    """
    if topics is None:
        yield None
        return
    bag = find_bag(path)
    if bag is None:
        raise InputError(f"{path}: expected a bag with --keep-topics, got files without topics")
    with open_reader(bag, say=lambda line: None) as reader:
        missing = [topic for topic in topics if absolute(topic) not in reader.topics]
        if missing:
            raise InputError(f"{bag}: no messages on {', '.join(missing)}; topics: {', '.join(sorted(reader.topics))}")
        chosen = [absolute(topic) for topic in topics]
        taken = [topic for topic in chosen if is_written(topic)]
        if taken:
            raise InputError(f"{', '.join(taken)}: expected topics to keep that this command does not write itself")
        if not topics:
            chosen = [topic for topic in reader.topics if topic not in used and not is_written(topic)]
        yield KeptTopics(reader, chosen, skip)
