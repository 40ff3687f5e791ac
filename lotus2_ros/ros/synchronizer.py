"""The synchronizer of images and camera_info."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from torch import Tensor

from lotus2_ros.config.live import LiveConfig
from lotus2_ros.geometry.calibration import Calibration
from lotus2_ros.ros.diagnostics import Diagnostics
from lotus2_ros.ros.messages import stamp_nanoseconds

IMAGE_QUEUE = 10  # as image_transport's CameraSubscriber has it
INFO_QUEUE = 30  # they are small, and a callback may find many of them at once


@dataclass(frozen=True)
class CameraFrame:
    """An image with its calibration; ``info`` is None only if ``input.fov`` stands in for it.

    ``pixels``: a compressed image, decoded to (H, W, 3) uint8 RGB.
    """

    image: Image | CompressedImage
    info: CameraInfo | None
    arrived: float  # time.perf_counter()
    pixels: Tensor | None = None


class Synchronizer:
    """Matches each image with the camera_info of its stamp, in whichever order the two arrive.

    ``deliver`` gets every frame at once when both are there, and never an older image after a newer one. An image waits
    for its camera_info until IMAGE_QUEUE newer images have come.
    """

    def __init__(
        self,
        config: LiveConfig,
        deliver: Callable[[CameraFrame], None],
        diagnostics: Diagnostics,
        *,
        rectified: bool = False,
    ) -> None:
        self.dropped = 0  # frames whose camera_info came after that of a newer image
        # The camera_info that have arrived already and wait for the executor.
        self.take_infos: Callable[[], Iterable[CameraInfo]] = tuple
        self._config = config
        self._deliver = deliver
        self._diagnostics = diagnostics
        self._rectified = rectified
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()  # by stamp, in order of arrival
        self._waiting: deque[tuple[int, CameraFrame]] = deque()  # images without camera_info, by number
        self._received = self._delivered = 0  # numbers of the newest image

    def image(self, message: Image | CompressedImage) -> None:
        for info in self.take_infos():
            self.info(info)
        self._diagnostics.image_received()
        self._received += 1
        frame = CameraFrame(message, self._find_info(message), time.perf_counter())
        if frame.info is not None or (not self._infos and self._config.current.input.fov > 0):
            self._delivered = self._received
            self._deliver(frame)
        else:
            self._waiting.append((self._received, frame))
        while self._waiting and self._waiting[0][0] <= self._received - IMAGE_QUEUE:
            self._reject(self._waiting.popleft()[1].image)

    def info(self, message: CameraInfo) -> None:
        uncalibrated = not Calibration.of(message).is_calibrated(rectified=self._rectified)
        if self._config.current.input.fov > 0 and uncalibrated:
            self._infos.clear()  # input.fov stands in for it
            return
        stamp = stamp_nanoseconds(message.header)
        self._infos[stamp] = message
        self._infos.move_to_end(stamp)
        if len(self._infos) > INFO_QUEUE:
            self._infos.popitem(last=False)
        waiting, self._waiting = self._waiting, deque()
        for number, frame in waiting:
            info = self._find_info(frame.image)
            if info is None:
                self._waiting.append((number, frame))
            else:
                self._deliver_in_order(number, replace(frame, info=info))

    def _deliver_in_order(self, number: int, frame: CameraFrame) -> None:
        if number < self._delivered:
            self.dropped += 1
            return
        self._delivered = number
        self._deliver(frame)

    def _find_info(self, image: Image | CompressedImage) -> CameraInfo | None:
        """The camera_info of the image's stamp, else the nearest within input.sync_slop."""
        stamp = stamp_nanoseconds(image.header)
        exact = self._infos.get(stamp)
        slop = self._config.current.input.sync_slop
        if exact is not None or not self._infos or slop == 0:
            return exact
        nearest = min(self._infos, key=lambda other: abs(other - stamp))
        return self._infos[nearest] if abs(nearest - stamp) <= slop * 1e9 else None

    def _reject(self, image: Image | CompressedImage) -> None:
        stamp = stamp_nanoseconds(image.header)
        if not self._infos:
            text = "expected a camera_info with each image, got none; publish it, or set input.fov to go without"
        else:
            nearest = min((other - stamp for other in self._infos), key=abs)
            text = (
                f"expected a camera_info within {self._config.current.input.sync_slop:g} s of the image's stamp "
                f"{stamp * 1e-9:.6f}, the nearest is {nearest * 1e-9:+.6f} s off; see input.sync_slop"
            )
        self._diagnostics.reject("camera_info_missing", text)
