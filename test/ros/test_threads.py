import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotus2_ros.config import SharpConfig
from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.threads import LatestQueue, ModelThread

TIMEOUT = allowed(30.0)  # seconds; only ever reached when a test fails


@dataclass
class Frame:
    """A frame that waits for the model."""

    predict: Callable


@dataclass
class Coarse:
    """A result to sharpen."""

    sharpen: Callable
    period: float = 0.0
    share: float = 0.0
    camera: str = "camera"

    @property
    def sharp(self):
        return SharpConfig(period=self.period, share=self.share)


def test_only_the_newest_frame_is_kept_and_the_others_are_counted():
    queue = LatestQueue()
    for frame in range(5):
        queue.put("left", frame)
    assert queue.take(0) == 4 and queue.take(0) is None
    assert queue.dropped == {"left": 4}


def test_cameras_are_served_in_turn():
    queue = LatestQueue()
    queue.put("left", "l0")
    queue.put("right", "r0")
    queue.put("left", "l1")
    assert queue.take(0) == "l1"
    queue.put("left", "l2")
    assert [queue.take(0), queue.take(0), queue.take(0)] == ["r0", "l2", None]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_every_frame_is_taken_or_dropped_or_still_there(events):
    queue, taken = LatestQueue(), 0
    for number, (camera, take) in enumerate(events):
        queue.put(camera, number)
        taken += take and queue.take(0) is not None
    left = 0
    while queue.take(0) is not None:
        left += 1
    assert len(events) == taken + left + sum(queue.dropped.values())


def test_closing_wakes_the_taker():
    queue = LatestQueue()
    taker = threading.Thread(target=queue.take, args=(None,))
    taker.start()
    queue.close()
    taker.join(TIMEOUT)
    assert not taker.is_alive()


class Steps:
    """The code between a generator's yields, as the steps of a sharpening."""

    def __init__(self, generator):
        self.generator = generator

    def step(self):
        return next(self.generator, self) is not self


class Script:
    """A worker whose sharpener puts the next frames into the queue between its steps, and that logs what it does."""

    def __init__(self, steps, arrivals, period=0.0):
        self.queue, self.log, self.done = LatestQueue(), [], threading.Event()
        self.steps, self.arrivals, self.period = steps, arrivals, period
        self.error = None
        self.worker = ModelThread(self.queue, self.failed)

    def put(self, frame):
        self.queue.put("camera", Frame(partial(self.predict, frame)))

    def predict(self, frame):
        self.log.append(f"predict {frame}")
        return Coarse(lambda: Steps(self.sharpen(frame)), self.period)

    def sharpen(self, frame):
        for step in range(self.steps):
            self.log.append(f"step {step} of {frame}")
            for arrival in self.arrivals.pop((frame, step), []):
                self.put(arrival)
            yield
        self.log.append(f"sharp {frame}")
        if not self.arrivals:
            self.done.set()

    def failed(self, error):
        self.error = error
        self.done.set()

    def run(self, frame):
        self.put(frame)
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
    script.predict = lambda frame: 1 / 0
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

    script.predict = counting
    script.put("a")
    script.worker.start()
    assert script.done.wait(TIMEOUT)
    script.put("c")
    assert third.wait(TIMEOUT) and script.worker.stop(TIMEOUT)
    assert [line for line in script.log if line.startswith("step")] == ["step 0 of a"]


class Saturated:
    """A camera and a sharpener that never ends, in a time that passes only while the worker computes.

    A frame takes ``frame`` seconds and an Euler step ``step``; ``count`` images come every ``interval`` seconds.
    """

    def __init__(self, *, frame, step, interval, share, count=60):
        self.frame, self.step, self.interval, self.share, self.count = frame, step, interval, share, count
        self.now, self.arrived, self.waits, self.log = 0.0, 0, [], []
        self.queue, self.done = LatestQueue(), threading.Event()
        worker = ModelThread(self.queue, lambda error: None, clock=lambda: self.now)
        self.spend(0.0)
        worker.start()
        assert self.done.wait(TIMEOUT) and worker.stop(TIMEOUT)

    def spend(self, seconds):
        self.now += seconds
        while self.arrived < self.count and self.arrived * self.interval <= self.now:
            self.queue.put("camera", Frame(partial(self.predict, self.arrived * self.interval)))
            self.arrived += 1

    def predict(self, arrival):
        self.waits.append(self.now - arrival)
        self.spend(self.frame)
        self.log.append("frame")
        return Coarse(lambda: Steps(self.sharpen()), share=self.share)

    def sharpen(self):
        while self.arrived < self.count:
            self.spend(self.step)
            self.log.append("step")
            yield
        self.done.set()

    @property
    def steps_between_frames(self):
        return "".join("s" if entry == "step" else " " for entry in self.log).split(" ")[1:-1]


SECONDS = st.floats(0.01, 0.2)


@given(frame=SECONDS, step=SECONDS, share=st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0]))
def test_the_sharpener_gets_its_share_of_a_model_that_is_never_idle(frame, step, share):
    run = Saturated(frame=frame, step=step, interval=frame / 2, share=share, count=400)
    assert max(map(len, run.steps_between_frames)) <= 1  # each frame waits for one step at the most
    spent = run.log.count("step") * step, run.log.count("frame") * frame
    # A step after every frame is the most there is.
    expected = min(share, step / (step + frame))
    assert spent[0] / sum(spent) == pytest.approx(expected, abs=2 * (step + frame) / sum(spent))


@given(frame=SECONDS, step=SECONDS, slack=st.floats(0.0, 0.5), share=st.floats(0.0, 1.0))
def test_a_frame_is_done_within_its_own_time_and_one_step(frame, step, slack, share):
    """At any rate that leaves room for a step between two frames; 1e-9: sums of floats."""
    run = Saturated(frame=frame, step=step, interval=frame + step + slack, share=share)
    assert len(run.waits) == run.count and max(run.waits) <= step + 1e-9
    assert run.log.count("step") >= run.count - 2


@pytest.mark.parametrize(("share", "between"), [(0.0, ""), (1.0, "s")])
def test_the_two_ends_of_the_share(share, between):
    run = Saturated(frame=0.03, step=0.03, interval=0.01, share=share)
    assert set(run.steps_between_frames) == {between}


def test_the_first_thing_in_the_thread():
    """What is set for a thread, such as its number of CPU threads, has to be set in it."""
    queue, seen, over = LatestQueue(), [], threading.Event()

    def note(what):
        seen.append(f"{what} in {threading.current_thread().name}")

    def predict():
        note("predict")
        over.set()

    worker = ModelThread(queue, seen.append, enter=lambda: note("enter"))
    queue.put("camera", Frame(predict))
    worker.start()
    assert over.wait(TIMEOUT) and worker.stop(TIMEOUT)
    assert seen == ["enter in model", "predict in model"]


def test_cameras_have_turns_by_their_weights():
    queue, taken = LatestQueue({"front": 2.0}), []
    for _ in range(40):
        for camera in ("front", "left", "rear"):
            queue.put(camera, camera)
        taken.append(queue.take(0))
    assert [taken.count(camera) for camera in ("front", "left", "rear")] == [20, 10, 10]


def test_a_camera_that_was_silent_does_not_catch_up():
    queue = LatestQueue()
    for _ in range(10):
        queue.put("left", "left")
        queue.take(0)
    taken = []
    for _ in range(6):
        for camera in ("left", "right"):
            queue.put(camera, camera)
        taken.append(queue.take(0))
    assert taken.count("right") == 3


def test_cameras_are_sharpened_in_turn():
    queue, sharpened, over = LatestQueue(), [], threading.Event()

    def put(camera):
        queue.put(camera, Frame(lambda: Coarse(lambda: Steps(sharpen(camera)), camera=camera)))

    def sharpen(camera):
        sharpened.append(camera)
        put("left")
        put("right")
        if len(sharpened) == 6:
            over.set()
        yield from ()

    worker = ModelThread(queue, lambda error: None)
    put("left")
    put("right")
    worker.start()
    assert over.wait(TIMEOUT)
    assert worker.stop(TIMEOUT)
    assert {sharpened[:6].count(camera) for camera in ("left", "right")} == {3}
