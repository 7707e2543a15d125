"""A demo in the browser: choose a picture, or take one with the webcam, and see the people in it.

    python gradio_demo.py

Needs `pip install gradio`.
"""

from __future__ import annotations

import argparse
from typing import Any

import gradio as gr
from PIL.Image import Image

from posewright_client import Client, PosewrightError, draw

HEADERS = ["person", "score", "keypoint", "x (px)", "y (px)", "keypoint's score"]


def build(client: Client) -> gr.Interface:
    """Return the page; `launch` it."""

    def find_people(image: Image | None, min_score: float) -> tuple[Image, list[list[Any]]]:
        if image is None:
            raise gr.Error("Choose a picture first.")
        try:
            prediction = client.predict(image, min_score=min_score)
        except PosewrightError as error:
            raise gr.Error(str(error)) from error
        rows = [
            [number, round(pose.score, 2), point.name, round(point.x, 1), round(point.y, 1), round(point.score, 2)]
            for number, pose in enumerate(prediction, 1)
            for point in pose.keypoints
        ]
        return draw(image, prediction), rows

    return gr.Interface(
        find_people,
        inputs=[
            gr.Image(type="pil", label="Picture"),
            gr.Slider(0, 1, 0.3, label="Lowest score of a person"),
        ],
        outputs=[gr.Image(label="People"), gr.Dataframe(headers=HEADERS, label="Keypoints")],
        title="posewright",
        flagging_mode="never",
        api_name="find_people",
    )


def main() -> None:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A demo in the browser.")
    parser.add_argument("--url", default="http://localhost:8000", help="address of the posewright server")
    with Client(parser.parse_args().url) as client:
        build(client).launch()


if __name__ == "__main__":
    main()
