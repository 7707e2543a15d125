"""Shows in FiftyOne where a model errs on labelled pictures (COCO keypoints).

    pip install fiftyone
    python fiftyone_evaluation.py annotations.json pictures/
    python fiftyone_evaluation.py annotations.json pictures/ --model teacher --app

FiftyOne's OKS tolerates the same error at every keypoint, and more than COCO's does. So its mAP is higher than COCO's:
use it to find the worst pictures, and `posewright-train evaluate` for figures to compare with others.
"""

from __future__ import annotations

import argparse

import fiftyone as fo

from posewright_client import KEYPOINTS, Client, Prediction


def to_fiftyone(prediction: Prediction) -> fo.Keypoints:
    """Return the people as FiftyOne's keypoints, whose coordinates are shares of the picture's width and height."""
    width, height = prediction.image_size
    return fo.Keypoints(
        keypoints=[
            fo.Keypoint(
                label="person",
                points=[(point.x / width, point.y / height) for point in pose.keypoints],
                confidence=[point.score for point in pose.keypoints],
                score=pose.score,
            )
            for pose in prediction
        ]
    )


def load(annotations: str, pictures: str) -> fo.Dataset:
    """Load labelled pictures; those without labelled people stay in, since a model may find some in them."""
    dataset = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        labels_path=annotations,
        data_path=pictures,
        label_types="keypoints",
        label_field="labels",
        include_id=False,
    )
    # FiftyOne counts from 0, and draws these lines in its app.
    edges = [[0, 1, 3], [0, 2, 4], [5, 6], [5, 7, 9], [6, 8, 10], [5, 11, 13, 15], [6, 12, 14, 16], [11, 12]]
    dataset.default_skeleton = fo.KeypointSkeleton(labels=list(KEYPOINTS), edges=edges)
    dataset.save()
    return dataset


def main(arguments: list[str] | None = None) -> float:
    """Predict, evaluate, and print; returns FiftyOne's mAP."""
    parser = argparse.ArgumentParser(description="Shows in FiftyOne where a model errs.")
    parser.add_argument("annotations", help="a COCO keypoints file")
    parser.add_argument("pictures", help="the folder with its pictures")
    parser.add_argument("--model", default="student", help="student, teacher, or a name (default: student)")
    parser.add_argument("--app", action="store_true", help="open FiftyOne's app afterwards")
    parser.add_argument("--url", default="http://localhost:8000", help="address of the posewright server")
    args = parser.parse_args(arguments)

    dataset = load(args.annotations, args.pictures)
    with Client(args.url) as client:
        for sample in dataset:
            sample["people"] = to_fiftyone(client.predict(sample.filepath, model=args.model))
            sample.save()

    results = dataset.evaluate_detections("people", gt_field="labels", eval_key="eval", compute_mAP=True)
    print(f"{len(dataset)} pictures, mAP {results.mAP():.3f} by FiftyOne's OKS")
    for sample in dataset.sort_by("eval_fn", reverse=True).limit(5):
        print(f"{sample.eval_fn} missed, {sample.eval_fp} too many: {sample.filepath}")
    if args.app:
        fo.launch_app(dataset).wait()
    return float(results.mAP())


if __name__ == "__main__":
    main()
