"""A ROS 2 node (Humble or newer): the people in a camera's images, as JSON on a topic.

    source /opt/ros/humble/setup.bash && pip install './clients/python[video]'
    python3 ros2_node.py --ros-args -r image:=/camera/image_raw -p url:=http://robot:8000
    ros2 topic echo /people --field data

``-p compressed:=true`` subscribes to `sensor_msgs/CompressedImage`, whose JPEGs are sent on as they are.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from posewright_client import Client, Frame, Picture, PosewrightError, StreamResult


@dataclass(frozen=True)
class StampedFrame(Frame):
    """A frame with the header of its message; the result of a frame has the frame."""

    header: Any = None


def to_frame(message: Any) -> StampedFrame:
    """Return the frame of a `sensor_msgs/CompressedImage` (its bytes), or of an `Image` (its pixels as RGB)."""
    stamp = message.header.stamp
    data = bytes(message.data)
    picture: Picture = data
    if not hasattr(message, "format"):  # an Image; its rows may have padding
        rows = np.frombuffer(data, np.uint8).reshape(message.height, message.step)
        channels = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "mono8": [0, 0, 0]}[message.encoding]
        pixel_bytes = max(channels) + 1
        pixels = rows[:, : message.width * pixel_bytes].reshape(message.height, message.width, pixel_bytes)
        picture = np.ascontiguousarray(pixels[:, :, channels])
    return StampedFrame(picture, stamp.sec * 1_000_000 + stamp.nanosec // 1000, message.header)


def to_json(result: StreamResult) -> str:
    """Return the people of a frame as JSON, with the frame's header; coordinates are px of the image."""
    assert isinstance(result.frame, StampedFrame)
    header = result.frame.header
    people = [
        {
            "id": pose.id,  # stable while the connection to the server lasts
            "score": pose.score,
            "box": pose.box,  # x, y, width, height
            "keypoints": {it.name: [it.x, it.y, it.score] for it in pose.keypoints},
        }
        for pose in result
    ]
    stamp = {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec}
    return json.dumps({"header": {"stamp": stamp, "frame_id": header.frame_id}, "people": people})


def main() -> None:
    """Run the node until Ctrl-C."""
    import rclpy  # noqa: PLC0415 - ROS; the functions above work without it
    from rclpy.qos import qos_profile_sensor_data  # noqa: PLC0415
    from sensor_msgs.msg import CompressedImage, Image  # noqa: PLC0415
    from std_msgs.msg import String  # noqa: PLC0415

    rclpy.init()
    node = rclpy.create_node("posewright")
    url = node.declare_parameter("url", "http://localhost:8000").value
    kind = CompressedImage if node.declare_parameter("compressed", False).value else Image  # noqa: FBT003 - ROS's order
    publisher = node.create_publisher(String, "people", 10)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()  # the client takes them at once, and sends the newest
    node.create_subscription(kind, "image", messages.put, qos_profile_sensor_data)

    def frames() -> Iterator[StampedFrame]:
        while (message := messages.get()) is not None:
            yield to_frame(message)

    def publish() -> None:
        with Client(url) as client:
            try:
                for result in client.stream(frames()):
                    publisher.publish(String(data=to_json(result)))
            except PosewrightError as error:  # the client has tried to reconnect for a minute
                node.get_logger().fatal(str(error))
                rclpy.try_shutdown()

    threading.Thread(target=publish, daemon=True).start()
    with suppress(KeyboardInterrupt):
        rclpy.spin(node)
    messages.put(None)


if __name__ == "__main__":
    main()
