"""Time per picture of crowds, and where it goes.

python -m tests.system.bench_crowd ANNOTATIONS IMAGES [--least N] [--model NAME] [--rounds R]

ANNOTATIONS is COCO json; crowds are its pictures with N labelled people or more, IMAGES their folder. `predict` answers
each R times in process with the default settings and one thread; the fastest round counts.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from service.inference.predict import PoseRequest, Stopwatch, predict
from service.inference.registry import open_registry
from service.pose.backends.runner import Runner
from service.settings import Settings


class Counting:
    """Runs a network and counts the crops that it is given."""

    def __init__(self, runner: Runner) -> None:
        self.backend = runner.backend
        self.crops = 0
        self._runner = runner

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        self.crops += len(pixels)
        return self._runner.run(pixels)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--least", type=int, default=10)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    content = json.loads(options.annotations.read_text())
    labelled = Counter(it["image_id"] for it in content["annotations"])
    files = [it["file_name"] for it in content["images"] if labelled[it["id"]] >= options.least]
    settings = Settings(threads=1)
    registry = open_registry(settings)
    request = PoseRequest(
        registry.choose(options.model), None, settings.max_people, settings.min_score, settings.max_pixels
    )
    counting = Counting(request.choice.model.estimator._runner)
    request.choice.model.estimator._runner = counting
    registry.warm_up()
    rows = []
    for file in files:
        picture = (options.images / file).read_bytes()
        rounds = []
        for _ in range(options.rounds):
            watch = Stopwatch()
            counting.crops = 0
            told = len(predict(registry, picture, request, watch).poses)
            rounds.append([watch.laps_ms["detect"], watch.laps_ms["pose"], sum(watch.laps_ms.values())])
        rows.append([counting.crops, told, *np.min(rounds, axis=0)])
    print(f"{len(files)} pictures of {options.least} people or more, {request.choice.model.manifest.name}")
    print("| | crops | told | find ms | pose ms | total ms |\n|---|---|---|---|---|---|")
    table = np.array(rows)
    for name, values in {"mean": table.mean(axis=0), "most": table.max(axis=0)}.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
