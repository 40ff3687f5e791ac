"""The thread that decodes compressed images and compressed depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sensor_msgs.msg import CompressedImage

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.ros.messages import MessageError, image_to_tensor, only_message_errors
from lotus2_ros.ros.synchronizer import CameraFrame
from lotus2_ros.ros.threads import LatestQueue, QueueThread

DEPTH = "reference/depth"  # the key of depth references; frames have that of their camera
DEPTH_TURNS = 10.0  # for each of a frame, because it may be the depth of the frame that waits behind it


class DecoderThread(QueueThread[CameraFrame | CompressedImage]):
    """Decodes the newest compressed image while the model works on another: 100 megapixels take seconds.

    ``deliver`` is called in the thread with each decoded frame, ``reject`` with the reason and text of a bad one, and
    ``depth`` with each depth reference, which it decodes.
    """

    name = "decoder"

    def __init__(
        self,
        deliver: Callable[[CameraFrame], None],
        depth: Callable[[CompressedImage], None],
        reject: Callable[[str, str], None],
        config: LiveConfig,
        failed: Callable[[Exception], None],
    ) -> None:
        super().__init__(LatestQueue({DEPTH: DEPTH_TURNS}), failed)
        self._deliver = deliver
        self._depth = depth
        self._reject = reject
        self._config = config

    def _handle(self, item: CameraFrame | CompressedImage) -> None:
        if isinstance(item, CameraFrame):
            self._decode(item)
        else:
            self._depth(item)

    def _decode(self, frame: CameraFrame) -> None:
        try:
            with only_message_errors():
                pixels = image_to_tensor(frame.image, self._config.current.input)
        except MessageError as error:
            self._reject(error.reason, str(error))
        else:
            self._deliver(replace(frame, pixels=pixels))
