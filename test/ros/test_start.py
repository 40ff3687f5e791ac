"""What the start of the node's process costs, without starting one."""

import gc

from lotus2_ros.ros.node import lasting


def test_what_stays_is_left_to_no_collection():
    gc.collect()
    before = gc.get_freeze_count()
    try:
        with lasting():
            assert not gc.isenabled()
            made = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() - before >= len(made)
        assert not any(item is made for item in gc.get_objects())
    finally:
        gc.unfreeze()
