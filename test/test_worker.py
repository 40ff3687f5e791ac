import threading

from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.worker import Mailboxes, Worker

TIMEOUT = 10.0  # seconds; only ever reached when a test fails


def test_only_the_newest_frame_is_kept_and_the_others_are_counted():
    boxes = Mailboxes()
    for frame in range(5):
        boxes.put("left", frame)
    assert boxes.take(0) == 4 and boxes.take(0) is None
    assert boxes.dropped == {"left": 4}


def test_cameras_are_served_in_turn():
    boxes = Mailboxes()
    boxes.put("left", "l0")
    boxes.put("right", "r0")
    boxes.put("left", "l1")
    assert boxes.take(0) == "l1"
    boxes.put("left", "l2")
    assert [boxes.take(0), boxes.take(0), boxes.take(0)] == ["r0", "l2", None]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_every_frame_is_taken_or_dropped_or_still_there(events):
    boxes, taken = Mailboxes(), 0
    for number, (camera, take) in enumerate(events):
        boxes.put(camera, number)
        taken += take and boxes.take(0) is not None
    left = 0
    while boxes.take(0) is not None:
        left += 1
    assert len(events) == taken + left + sum(boxes.dropped.values())


def test_closing_wakes_the_taker():
    boxes = Mailboxes()
    taker = threading.Thread(target=boxes.take, args=(None,))
    taker.start()
    boxes.close()
    taker.join(TIMEOUT)
    assert not taker.is_alive()


class Script:
    """A worker whose sharpener puts the next frames into the mailbox between its steps, and that logs what it does."""

    def __init__(self, steps, arrivals, period=0.0):
        self.boxes, self.log, self.done = Mailboxes(), [], threading.Event()
        self.steps, self.arrivals = steps, arrivals
        self.error = None
        self.worker = Worker(self.boxes, self.predict, self.sharpen, lambda: period, self.failed)

    def predict(self, frame):
        self.log.append(f"predict {frame}")
        return frame

    def sharpen(self, frame):
        for step in range(self.steps):
            self.log.append(f"step {step} of {frame}")
            for arrival in self.arrivals.pop((frame, step), []):
                self.boxes.put("camera", arrival)
            yield
        self.log.append(f"sharp {frame}")
        if not self.arrivals:
            self.done.set()

    def failed(self, error):
        self.error = error
        self.done.set()

    def run(self, frame):
        self.boxes.put("camera", frame)
        self.worker.start()
        assert self.done.wait(TIMEOUT)
        assert self.worker.stop(TIMEOUT)
        return self.log


def test_a_frame_waits_for_one_step_at_the_most():
    log = Script(steps=3, arrivals={("a", 0): ["b"], ("a", 2): ["c", "d"]}).run("a")
    assert log[: log.index("sharp a") + 1] == [
        "predict a", "step 0 of a", "predict b", "step 1 of a", "step 2 of a", "predict d", "sharp a",
    ]  # fmt: skip


def test_the_newest_coarse_result_is_sharpened_next():
    log = Script(steps=2, arrivals={("a", 0): ["b"], ("a", 1): ["c"], ("c", 1): []}).run("a")
    assert log[-1] == "sharp c" and "step 0 of b" not in log


def test_an_exception_ends_the_thread_and_reaches_the_owner():
    script = Script(steps=1, arrivals={})
    script.sharpen = None
    script.worker = Worker(script.boxes, lambda frame: 1 / 0, script.sharpen, lambda: 0.0, script.failed)
    assert script.run("a") == []
    assert isinstance(script.error, ZeroDivisionError)


def test_the_sharpener_waits_for_its_period():
    """With a period of an hour only the first result is sharpened, however many frames come."""
    script = Script(steps=1, arrivals={("a", 0): ["b"]}, period=3600.0)
    third = threading.Event()
    predict = script.predict

    def counting(frame):
        result = predict(frame)
        if frame == "c":
            third.set()
        return result

    script.worker = Worker(script.boxes, counting, script.sharpen, lambda: 3600.0, script.failed)
    script.boxes.put("camera", "a")
    script.worker.start()
    assert script.done.wait(TIMEOUT)
    script.boxes.put("camera", "c")
    assert third.wait(TIMEOUT) and script.worker.stop(TIMEOUT)
    assert [line for line in script.log if line.startswith("step")] == ["step 0 of a"]
