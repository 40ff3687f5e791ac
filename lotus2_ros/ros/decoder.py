"""The thread that decodes compressed images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.ros.messages import MessageError, image_to_tensor, only_message_errors
from lotus2_ros.ros.synchronizer import CameraFrame
from lotus2_ros.ros.threads import LatestQueue, QueueThread


class DecoderThread(QueueThread[CameraFrame]):
    """Decodes the newest compressed image while the model works on another: 100 megapixels take seconds.

    ``deliver`` is called in the thread with each decoded frame, ``reject`` with the reason and text of a bad one.
    """

    name = "decoder"

    def __init__(
        self,
        deliver: Callable[[CameraFrame], None],
        reject: Callable[[str, str], None],
        config: LiveConfig,
        failed: Callable[[Exception], None],
    ) -> None:
        super().__init__(LatestQueue(), failed)
        self._deliver = deliver
        self._reject = reject
        self._config = config

    def _handle(self, frame: CameraFrame) -> None:
        try:
            with only_message_errors():
                pixels = image_to_tensor(frame.image, self._config.current.input)
        except MessageError as error:
            self._reject(error.reason, str(error))
        else:
            self._deliver(replace(frame, pixels=pixels))
