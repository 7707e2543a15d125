"""The log of a training, as the report and TensorBoard show it."""

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import tiny_recipe
from training.engine import history, tensorboard
from training.engine.history import HistoryError

TWO_PHASES = [{"steps": 100, "batch": 4, "size": [96, 128]}, {"steps": 100, "batch": 10, "size": [96, 128]}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text("step,loss,note,lr\n50,3,a,.1\n100,2,b,\n100,1.5,c,.2\n150,1,d,.3\n200,0.")
    return tmp_path


def test_an_incomplete_last_row_is_ignored(run: Path) -> None:
    read = history.read(run / "log.csv")
    assert read.steps.tolist() == [50, 100, 150]
    assert list(read.columns) == ["loss", "lr"]
    assert read.columns["loss"].tolist() == [3, 1.5, 1]
    assert read.columns["lr"].tolist() == [0.1, 0.2, 0.3]


def test_samples_follow_the_batches_of_the_phases(run: Path) -> None:
    read = history.read(run / "log.csv")
    assert read.samples(tiny_recipe(phases=TWO_PHASES)).tolist() == [200, 400, 900]


def test_logged_samples_take_precedence(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,samples,loss\n50,800,1\n")
    assert history.read(tmp_path / "log.csv").samples(tiny_recipe()).tolist() == [800]


@pytest.mark.parametrize("content", ["", "epoch,loss\n1,2\n"], ids=["empty", "other columns"])
def test_a_table_without_steps_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "log.csv").write_text(content)
    with pytest.raises(HistoryError, match=r"log\.csv: expected a log with a column 'step'"):
        history.read(tmp_path / "log.csv")


def test_a_log_without_rows_is_empty(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n")
    read = history.read(tmp_path / "log.csv")
    assert not len(read.steps)
    assert not read.columns


def test_writing_events_again_replaces_them(run: Path) -> None:
    for _ in range(2):
        assert tensorboard.export_events(run) == run / "tensorboard"
    assert sorted(path.name for path in run.iterdir()) == ["log.csv", "tensorboard"]
    assert len(list((run / "tensorboard").iterdir())) == 1
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "lr"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(50, 3), (100, 1.5), (150, 1)]


def test_events_skip_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss,ap\n50,3,\n100,2,0.5\n")
    events = EventAccumulator(str(tensorboard.export_events(tmp_path))).Reload()
    assert [(event.step, event.value) for event in events.Scalars("ap")] == [(100, 0.5)]


def test_without_a_log_no_events_are_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tensorboard.export_events(tmp_path)
    assert not list(tmp_path.iterdir())


def test_empty_cells_are_nan(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss,ap\n50,3,\n100,2,0.5\n")
    assert np.isnan(history.read(tmp_path / "log.csv").columns["ap"][0])
