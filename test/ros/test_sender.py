"""The thread that publishes what the model thread queues."""

import threading

from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.threads import SenderThread

TIMEOUT = allowed(30.0)  # seconds; only ever reached when a test fails


class Slow:
    """A sender whose items are sent only when the test says so."""

    def __init__(self):
        self.sent, self.errors, self.failed = [], [], threading.Event()
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.sender = SenderThread(self.send, self.fail)
        self.sender.start()

    def send(self, item):
        self.begun.release()
        assert self.go_on.acquire(timeout=TIMEOUT)
        self.sent.append(1 // item)

    def fail(self, error):
        self.errors.append(error)
        self.failed.set()


def test_the_model_does_not_wait_for_a_slow_subscriber():
    """All puts return while the first item is being sent; older items that wait are dropped and counted. The stage that
    was served less goes first."""
    slow = Slow()
    slow.sender.queue.put("core", 1)
    assert slow.begun.acquire(timeout=TIMEOUT)
    for item in (-1, 1, -1):
        slow.sender.queue.put("core", item)
    slow.sender.queue.put("sharpener", 1)
    assert not slow.sent and slow.sender.queue.dropped == {"core": 2, "sharpener": 0}
    for _ in range(3):
        slow.go_on.release()
    for _ in range(2):
        assert slow.begun.acquire(timeout=TIMEOUT)
    assert slow.sender.stop(TIMEOUT) and slow.sent == [1, 1, -1]


def test_a_sender_that_does_not_come_back_is_told_of():
    slow = Slow()
    slow.sender.queue.put("core", 1)
    assert slow.begun.acquire(timeout=TIMEOUT) and not slow.sender.stop(0)
    slow.go_on.release()
    assert slow.sender.stop(TIMEOUT)


def test_a_failure_to_send_reaches_the_owner():
    slow = Slow()
    slow.sender.queue.put("core", 0)
    slow.go_on.release()
    assert slow.failed.wait(TIMEOUT) and slow.sender.stop(TIMEOUT)
    assert [type(error) for error in slow.errors] == [ZeroDivisionError] and not slow.sent
