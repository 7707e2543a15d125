"""``ros2_node.py`` with ROS 2's definitions of messages, and a stand-in for rclpy, which PyPI does not have."""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from posewright_client import Client
from tests import spots
from tests.client.examples.conftest import Load
from tests.conftest import Running
from tests.spots import SURE

PIXELS = spots.paint(SURE)
HEIGHT, WIDTH, _ = PIXELS.shape
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def humble() -> Any:
    """ROS 2 Humble's types of messages."""
    typesys = pytest.importorskip("rosbags.typesys", reason="needs rosbags, which has ROS's message definitions")
    return typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)


def header(humble: Any, seconds: int = 7) -> Any:
    stamp = humble.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=123_456_789)
    return humble.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def raw_image(humble: Any, encoding: str, padding: int = 0, seconds: int = 7) -> Any:
    pixels = {"rgb8": PIXELS, "bgr8": PIXELS[..., ::-1], "mono8": PIXELS[..., :1]}[encoding]
    rows = np.pad(pixels.reshape(HEIGHT, -1), ((0, 0), (0, padding)), constant_values=255)
    message = humble.types["sensor_msgs/msg/Image"](
        header(humble, seconds), HEIGHT, WIDTH, encoding, 0, rows.shape[1], np.ascontiguousarray(rows).reshape(-1)
    )
    # As it comes from the wire.
    return humble.deserialize_cdr(humble.serialize_cdr(message, message.__msgtype__), message.__msgtype__)


def compressed_image(humble: Any, seconds: int = 7) -> Any:
    content = np.frombuffer(spots.encode(PIXELS, "JPEG"), np.uint8)
    return humble.types["sensor_msgs/msg/CompressedImage"](header(humble, seconds), "jpeg", content)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_pixels_become_rgb(load: Load, humble: Any, encoding: str, padding: int) -> None:
    frame = load("ros2_node").to_frame(raw_image(humble, encoding, padding))
    expected = np.repeat(PIXELS[..., :1], 3, axis=2) if encoding == "mono8" else PIXELS
    assert np.array_equal(frame.picture, expected)
    assert frame.capture_us == 7_123_456
    assert frame.header.frame_id == "camera"


@pytest.mark.parametrize("compressed", [False, True])
def test_the_people_of_a_message_have_its_header(load: Load, humble: Any, server: Running, compressed: bool) -> None:
    node = load("ros2_node")
    message = compressed_image(humble) if compressed else raw_image(humble, "bgr8")
    with Client(server.url) as client:
        (result,) = client.stream([node.to_frame(message)])
    text = node.to_json(result)
    published = humble.types["std_msgs/msg/String"](data=text)
    received = humble.deserialize_cdr(humble.serialize_cdr(published, published.__msgtype__), published.__msgtype__)
    document = json.loads(received.data)
    assert document["header"] == {"stamp": {"sec": 7, "nanosec": 123_456_789}, "frame_id": "camera"}
    (person,) = document["people"]
    points = np.array(list(person["keypoints"].values()))[:, :2]
    assert np.abs(points - SURE.keypoints).max() < 1
    assert list(person["keypoints"])[9] == "left_wrist"


class Middleware:
    """Stands in for rclpy and its middleware: topics within the process, and the functions that the node calls."""

    def __init__(self, humble: Any, parameters: dict[str, Any], during: Callable[[Middleware], None]) -> None:
        self.parameters, self.during = parameters, during
        self.subscriptions: dict[str, tuple[Any, Callable[[Any], None]]] = {}
        self.published: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.fatal: queue.SimpleQueue[str] = queue.SimpleQueue()
        messages = {name.rsplit("/", 1)[1]: kind for name, kind in humble.types.items()}
        modules: dict[str, dict[str, Any]] = {
            "rclpy": {
                "init": lambda: None, "create_node": lambda _: self, "spin": lambda _: self.during(self),
                "try_shutdown": lambda: None,
            },
            "rclpy.qos": {"qos_profile_sensor_data": "sensor data"},
            "sensor_msgs": {},
            "sensor_msgs.msg": {name: messages[name] for name in ("Image", "CompressedImage")},
            "std_msgs": {},
            "std_msgs.msg": {"String": messages["String"]},
        }  # fmt: skip
        self.modules = {}
        for name, members in modules.items():
            self.modules[name] = ModuleType(name)
            vars(self.modules[name]).update(members)

    def declare_parameter(self, name: str, default: Any) -> Any:
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind: Any, topic: str, _: int) -> Any:
        def publish(message: Any) -> None:
            assert isinstance(message, kind)
            self.published.put((topic, message))

        return SimpleNamespace(publish=publish)

    def create_subscription(self, kind: Any, topic: str, callback: Callable[[Any], None], _: Any) -> None:
        self.subscriptions[topic] = kind, callback

    def get_logger(self) -> Any:
        return SimpleNamespace(fatal=self.fatal.put)

    def send(self, topic: str, message: Any) -> None:
        kind, callback = self.subscriptions[topic]
        assert isinstance(message, kind)
        callback(message)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_node_answers_images_until_it_is_stopped(
    load: Load, humble: Any, server: Running, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    seconds = []

    def during(ros: Middleware) -> None:
        for i in range(3):
            ros.send("image", compressed_image(humble, i) if compressed else raw_image(humble, "rgb8", 3, i))
            topic, message = ros.published.get(timeout=PATIENCE_S)
            assert topic == "people"
            document = json.loads(message.data)
            seconds.append((document["header"]["stamp"]["sec"], len(document["people"])))
        raise KeyboardInterrupt

    ros = Middleware(humble, {"url": server.url, "compressed": compressed}, during)
    for name, module in ros.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    load("ros2_node").main()
    assert seconds == [(0, 1), (1, 1), (2, 1)]


def test_the_node_says_why_it_ends(load: Load, humble: Any, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def during(ros: Middleware) -> None:
        ros.send("image", compressed_image(humble))
        assert "403 Forbidden" in ros.fatal.get(timeout=PATIENCE_S)

    ros = Middleware(humble, {"url": server.url + "/nothing", "compressed": True}, during)
    for name, module in ros.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    load("ros2_node").main()
