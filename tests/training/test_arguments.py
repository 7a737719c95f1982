import json

import pytest
import yaml

from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoBlipDataArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
)


TYPES = [ModelArguments, EilevDataArguments, VideoNarrationTrainingArguments]
NEEDED = {"model_name_or_path": "model", "train_frames_dir": "clips", "output_dir": "out", "use_cpu": True}


def argv_of(options):
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


@pytest.mark.parametrize("suffix, dump", [("yaml", yaml.safe_dump), ("json", json.dumps)])
def test_a_file_and_the_command_line(tmp_path, suffix, dump):
    path = tmp_path / f"arguments.{suffix}"
    file = {**NEEDED, "learning_rate": 1e-5, "verb_noun_ratio": 0.25, "bf16": False, "report_to": ["none"]}
    file["lr_scheduler_kwargs"] = {"num_cycles": 2}
    file["report_to"] = ["wandb", "tensorboard"]
    file["save_strategy"] = False  # YAML's `no`
    path.write_text(dump(file))
    model, data, training = parse_arguments(TYPES, [str(path), "--verb_noun_ratio", "1", "--lora_r", "4"])
    assert (model.model_name_or_path, model.lora_r) == ("model", 4)
    assert data.verb_noun_ratio == 1.0 and data.train_frames_dir == "clips"
    assert training.learning_rate == 1e-5 and training.lr_scheduler_kwargs == {"num_cycles": 2}
    assert training.report_to == ["wandb", "tensorboard"] and training.save_strategy == "no"
    assert parse_arguments(TYPES, [str(path), "--report_to", "none"])[2].report_to == []


def test_a_file_may_name_an_alias(tmp_path):
    path = tmp_path / "arguments.yaml"
    path.write_text("train_narrated_actions_dir: clips\nmodel_name_or_path: model\noutput_dir: out\nuse_cpu: true")
    assert parse_arguments(TYPES, [str(path)])[1].train_frames_dir == "clips"


def test_a_file_with_a_mistake(tmp_path):
    path = tmp_path / "arguments.yaml"
    for content, message in [("learning_rte: 1", "learning_rte"), ("- 1", "must hold names"), ("a: [", "no YAML")]:
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            parse_arguments(TYPES, [str(path)])
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name, value",
    [
        ("verb_noun_ratio", 1.5),
        ("num_subsample_frames", 0),
        ("train_num_in_context_examples_per_sample", -1),
        ("lora_dropout", 1.0),
        ("max_val_samples", 0),
        ("load_in_8bit", True),
        ("vision_features_dir", "features"),
        ("remove_unused_columns", True),
        ("label_smoothing_factor", 0.1),
        ("train_sampling_strategy", "sequential"),
        ("train_target_dataset_len", 0),
    ],
)
def test_values_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        parse_arguments(TYPES, argv_of({**NEEDED, name: value}))


def test_defaults():
    """Training, if nothing is said; the best checkpoint, if there is an evaluation; augmentation for EILEV."""
    _, data, training = parse_arguments(TYPES, argv_of(NEEDED))
    assert training.do_train and not training.load_best_model_at_end and data.augment
    _, _, training = parse_arguments(TYPES, argv_of({**NEEDED, "eval_strategy": "steps", "eval_steps": 500}))
    assert training.load_best_model_at_end and training.do_eval
    _, _, training = parse_arguments(TYPES, argv_of({**NEEDED, "do_eval": True}))
    assert not training.do_train
    types = [ModelArguments, VideoBlipDataArguments, VideoNarrationTrainingArguments]
    assert not parse_arguments(types, argv_of(NEEDED))[1].augment
