"""Records in trackers, read back from TensorBoard's files."""

import pytest
from accelerate.utils import LoggerType
from made_records import make_records, record_of

from transformers_eilev.evaluation import trackers
from transformers_eilev.evaluation.trackers import check_trackers, track_records


def read_scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_shots_as_steps(tmp_path):
    # As when an evaluation is run again, with other numbers.
    track_records([record_of(exact=0.3), record_of(shots=2, exact=0.2)], ["tensorboard"], tmp_path)
    track_records(make_records(), ["tensorboard", "none"], tmp_path)
    runs = tmp_path / "tensorboard"
    assert sorted(path.name for path in runs.iterdir()) == [
        "generation-eilev-0",
        "generation-eilev-1",
        "generation-eilev-2",
        "generation-none-0",
        "generation-video-blip-0",
    ]
    assert read_scalars(runs / "generation-eilev-0") == {
        "novel/in_context/exact": [(0, 0.0), (2, pytest.approx(0.4))],
        "novel/shuffled/exact": [(2, pytest.approx(0.13))],
    }
    assert read_scalars(runs / "generation-none-0") == {"novel/majority/exact": [(2, pytest.approx(0.45))]}


def test_no_tracker_writes_nothing(tmp_path):
    track_records(make_records(), ["none"], tmp_path)
    track_records(make_records(), [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_trackers_that_can_not_be_used_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="one is 'tensorbord'"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [LoggerType.TENSORBOARD])
    check_trackers(["tensorboard"])
    with pytest.raises(ImportError, match="pip install wandb"):
        check_trackers(["tensorboard", "wandb"])
