"""The thread that sends what the model's thread hands over."""

import threading

from lotus2_ros.demo.deadlines import allowed
from lotus2_ros.ros.threads import SenderThread

TIMEOUT = allowed(30.0)  # seconds; only ever reached when a test fails


class Slow:
    """A sender whose items are sent only when the test says so."""

    def __init__(self):
        self.sent, self.errors = [], []
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.sender = SenderThread(self.send, self.errors.append)
        self.sender.start()

    def send(self, item):
        self.begun.release()
        assert self.go_on.acquire(timeout=TIMEOUT)
        self.sent.append(1 // item)

    def hand(self, item):
        """From a thread of its own, that ends when the item was taken over."""
        thread = threading.Thread(target=self.sender.hand, args=(item,))
        thread.start()
        return thread


def test_an_item_is_taken_over_only_when_the_one_before_was_sent():
    slow = Slow()
    slow.sender.hand(1)  # at once
    second = slow.hand(-1)
    assert slow.begun.acquire(timeout=TIMEOUT) and second.is_alive() and not slow.sent
    slow.go_on.release()
    second.join(TIMEOUT)
    assert not second.is_alive() and slow.sent == [1]
    slow.go_on.release()
    assert slow.sender.stop(TIMEOUT) and slow.sent == [1, -1]  # what was handed over is still sent


def test_a_sender_that_does_not_come_back_is_told_of():
    slow = Slow()
    slow.sender.hand(1)
    assert slow.begun.acquire(timeout=TIMEOUT) and not slow.sender.stop(0)
    slow.go_on.release()
    assert slow.sender.stop(TIMEOUT)


def test_a_failure_to_send_reaches_the_owner_and_blocks_nobody():
    slow = Slow()
    slow.sender.hand(0)
    waiting = slow.hand(1)
    slow.go_on.release()
    waiting.join(TIMEOUT)
    assert not waiting.is_alive() and slow.sender.stop(TIMEOUT)
    assert [type(error) for error in slow.errors] == [ZeroDivisionError] and not slow.sent
    slow.sender.hand(1)  # dropped
