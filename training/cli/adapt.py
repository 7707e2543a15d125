"""What posewright-train adapt does with its options."""

from __future__ import annotations

from argparse import Namespace

import cv2
import torch

from service.pose.backends.cpu_quota import available_cores
from training.adapt import adaptation, comparison, request
from training.data import coco


def run(options: Namespace) -> int:
    """See `adaptation.train` and `before_after.finish`."""
    threads = options.threads or available_cores()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    truth = coco.optional_source(options.annotations, options.images)
    asked = request.AdaptRequest(
        options.source,
        options.out,
        request.open_bundle(options.student),
        request.open_bundle(options.teacher),
        request.open_bundle(options.detector),
        frames=options.pictures,
        hold_out=options.hold_out,
        steps=options.steps,
        minutes=options.minutes,
        rehearse=tuple(options.rehearse),
        settings=tuple(options.set),
        blend=options.blend,
        threads=threads,
    )
    if options.dry_run:
        print(adaptation.dry_run(asked))
        return 0
    state, labels = adaptation.train(asked)
    print(comparison.finish(asked, state, labels, truth, options.every))
    return 0
