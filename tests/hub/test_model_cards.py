"""Model cards: what a training and evaluations left is in them, what nobody recorded is not."""

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from transformers_eilev import embedded_checkpoint
from transformers_eilev.commands.card import card as card_command
from transformers_eilev.evaluation.published import PAPER_FIGURES
from transformers_eilev.hub.card_checks import code_blocks, find_faults
from transformers_eilev.hub.model_cards import make_model_card
from transformers_eilev.hub.training_facts import read_training_arguments
from transformers_eilev.training import (
    EilevDataArguments,
    ModelArguments,
    VideoNarrationTrainingArguments,
    parse_arguments,
    run_training,
)


ROOT = Path(__file__).parents[2]
# What makes small stores of clips lies beside the tests of training.
sys.path.append(str(ROOT / "tests" / "training"))
CHECK = [sys.executable, str(ROOT / "utils" / "check_cards.py")]
CLIPS = ROOT / "examples" / "narration"
PROPOSED = sorted(path for path in (ROOT / "model_cards").glob("*.md") if path.name != "README.md")


def run(*arguments):
    app = typer.Typer()
    app.command()(card_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def metadata_of(text):
    """Read without huggingface_hub."""
    return yaml.safe_load(text.split("---\n")[1])


def facts_of(text):
    return dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", text, flags=re.MULTILINE))


def write_record(folder, seed, exact, **changes):
    record = {
        "task": "generation",
        "model": "kitchen",
        "dataset": "Our kitchen",
        "condition": "in_context",
        "shots": 4,
        "seed": seed,
        "num_queries": 50,
        "metrics": {"exact": {"value": exact, "interval": None}},
        "unavailable": {"cider": "no Java"},
        "versions": {"transformers-eilev": "0.1.0", "torch": "2.0"},
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({**record, **changes}))


@pytest.fixture(scope="module")
def training(tmp_path_factory, golden_opt):
    """What a short training of EILEV leaves."""
    from clip_stores import write_clip_store

    folder = tmp_path_factory.mktemp("runs")
    clips = write_clip_store(folder / "clips", num_train=6, num_val=2)
    argv = f"""
        --model_name_or_path {golden_opt.checkpoint} --train_frames_dir {clips} --val_frames_dir {clips}
        --output_dir {folder / "kitchen"} --max_steps 2 --per_device_train_batch_size 2 --gradient_accumulation_steps 2
        --num_subsample_frames 2 --learning_rate 3e-4 --weight_decay 0.07 --warmup_steps 3 --lr_scheduler_type cosine
        --train_num_in_context_examples_per_sample 3 --val_num_in_context_examples_per_sample 1 --verb_noun_ratio 0.25
        --augment False --use_cpu --report_to none --disable_tqdm True --save_strategy no --do_train --do_eval --seed 5
    """
    metrics = run_training(
        *parse_arguments([ModelArguments, EilevDataArguments, VideoNarrationTrainingArguments], shlex.split(argv))
    )
    return folder / "kitchen", metrics


# ------------------------------------------------------------------------------------- of a training and evaluations


def test_card_of_a_training(training, tmp_path):
    """By the command: arguments as they were given, losses as they were, numbers as in the records, and no paths."""
    folder, metrics = training
    for seed, exact in enumerate((0.5, 0.6, 0.7)):
        write_record(tmp_path / "results" / str(seed), seed, exact)
    write_record(tmp_path / "results" / "rule", 0, 0.25, model="none", condition="majority")
    written = tmp_path / "card.md"
    options = ["--results", tmp_path / "results", "--base-model", "Salesforce/blip2-opt-2.7b", "--license", "other"]
    options += [
        "--license-name",
        "opt-175b",
        "--license-link",
        "https://example.org/license",
        "--name",
        "me/our-kitchen",
    ]
    done = run(folder, *options, "--dataset", "me/clips", "--hardware", "one laptop", "--output", written)
    assert done.exit_code == 0, done.output
    text = written.read_text()

    metadata = metadata_of(text)
    assert metadata["base_model"] == "Salesforce/blip2-opt-2.7b" and metadata["base_model_relation"] == "finetune"
    assert (metadata["license"], metadata["license_name"]) == ("other", "opt-175b")
    assert metadata["pipeline_tag"] == "video-text-to-text" and metadata["library_name"] == "transformers"
    assert metadata["language"] == "en" and metadata["datasets"] == ["me/clips"]
    (index,) = metadata["model-index"]
    (result,) = index["results"]
    (metric,) = result["metrics"]
    assert index["name"] == "our-kitchen" and result["dataset"]["name"] == "Our kitchen"
    assert metric["value"] == 0.6 and metric["args"]["std"] == 0.1 and metric["args"]["shots"] == 4

    facts = facts_of(text)
    assert facts["clips trained on"] == "6" and facts["narrated clips before each"] == "3"
    assert facts["how these are chosen"].startswith("25% with the verb")
    assert facts["clips a step"] == "4: 1 process, 2 at a time, 2 accumulated"
    assert facts["learning rate"] == "0.0003" and facts["weight decay"] == "0.07" and facts["seed"] == "5"
    assert facts["schedule"] == "cosine, warm-up 3 steps" and facts["precision"] == "float32" and facts["steps"] == "2"
    assert facts["loss in training"] == f"{metrics['train_loss']:.4f}"
    assert facts["loss in evaluation"] == f"{metrics['eval_loss']:.4f}"
    assert facts["a clip"] == "2 frames, evenly spaced from 0 s to 8 s"
    assert "| kitchen | clips and narrations | 0.60 ± 0.10 |" in text
    assert "| no model | most frequent verb and noun of the context | 0.25 |" in text
    assert "no Java" in text and "one laptop" in text and "me/clips" in text
    assert "OPT-175B License Agreement" in text
    assert str(folder.parent) not in text and str(tmp_path) not in text and str(ROOT) not in text
    assert find_faults(text, folder=folder) == []


def test_training_elsewhere(training):
    """Of a checkpoint that was copied from where it was trained."""
    folder, _ = training
    text = str(make_model_card("eilev-synthetic-opt", training=folder))
    assert facts_of(text)["learning rate"] == "0.0003"
    with pytest.raises(FileNotFoundError, match="no training's `output_dir`"):
        make_model_card(folder, training=folder.parent)


def test_what_is_not_known_is_not_said():
    text = str(make_model_card("eilev-synthetic-opt"))
    metadata = metadata_of(text)
    assert metadata["license"] == "unknown"
    assert not {"base_model", "datasets", "model-index", "model_name"} & metadata.keys()
    assert text.count("not recorded") == 4 and "Not recorded." in text and "OPT-2.7B" not in text
    assert "Trained on rendered video" in text, "the checkpoint's notice"
    assert "None" not in text and "learning rate" not in text


def test_broken_files_of_a_training(training, tmp_path):
    folder, _ = training
    copy = shutil.copytree(folder, tmp_path / "kitchen")
    (copy / "all_results.json").write_text("{")
    with pytest.raises(ValueError, match="all_results.json is no JSON"):
        make_model_card(copy)
    for name in ("all_results.json", "training_args.bin"):
        (copy / name).unlink()
    facts = facts_of(str(make_model_card(copy)))
    assert "weight decay" not in facts and "loss in training" not in facts and facts["clips a step"] == "4"


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_arguments_is_not_run(tmp_path, writer):
    import torch

    path, trace = tmp_path / "training_args.bin", tmp_path / "run"
    if writer == "torch":
        torch.save(Harmful(trace), path)
    else:
        path.write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.warns(UserWarning, match="training_args.bin is left aside"):
        assert read_training_arguments(path) == {}
    assert not trace.exists()


def test_adapter(tmp_path):
    ignored = shutil.ignore_patterns("*.safetensors", "README.md")
    shutil.copytree(embedded_checkpoint(), tmp_path / "adapter", ignore=ignored)
    adapter = tmp_path / "adapter" / "adapter_config.json"
    adapter.write_text(json.dumps({"base_model_name_or_path": "Salesforce/blip2-flan-t5-xl"}))
    text = str(make_model_card(tmp_path / "adapter"))
    assert metadata_of(text)["base_model"] == "Salesforce/blip2-flan-t5-xl"
    assert metadata_of(text)["base_model_relation"] == "adapter" and "Apache-2.0" in text
    # A folder of whoever trained it is no model id.
    adapter.write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    text = str(make_model_card(tmp_path / "adapter"))
    assert "base_model" not in metadata_of(text) and str(tmp_path) not in text


def test_video_blip(golden_opt, tmp_path):
    """Whose clips come first, and whose prompts have no demonstrations."""
    shutil.copytree(golden_opt.checkpoint, tmp_path / "video-blip-kitchen")
    text = str(make_model_card(tmp_path / "video-blip-kitchen"))
    assert facts_of(text)["a clip"] == "1 frame a second from 0 s to 10 s"
    assert "demonstrations" not in text and "@software{yu-video-blip" in text
    assert "in-context-learning" not in metadata_of(text)["tags"]


def test_refusals(tmp_path):
    for model in ("kitchen", "cellar"):
        write_record(tmp_path / "results" / model, 0, 0.5, model=model)
    with pytest.raises(ValueError, match=r"of the models \['cellar', 'kitchen'\]: say by `results_model`"):
        make_model_card("eilev-synthetic-opt", results=[tmp_path / "results"])
    text = str(make_model_card("eilev-synthetic-opt", results=[tmp_path / "results"], results_model="kitchen"))
    assert "| kitchen |" in text and "cellar" not in text
    with pytest.raises(ValueError, match="`results_model` is 'attic'"):
        make_model_card("eilev-synthetic-opt", results=[tmp_path / "results"], results_model="attic")
    with pytest.raises(ValueError, match="`license` must be an id of the Hub's list of licenses, but is 'MIT'"):
        make_model_card("eilev-synthetic-opt", license="MIT")
    with pytest.raises(ValueError, match="`base_model` must be a model id"):
        make_model_card("eilev-synthetic-opt", base_model="/mnt/models/blip2")
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        make_model_card(tmp_path)


def test_the_command_replaces_nothing_unasked(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(embedded_checkpoint(), folder)
    before = (folder / "README.md").read_text()
    done = run(folder)
    assert done.exit_code == 1 and "--overwrite" in done.output and (folder / "README.md").read_text() == before
    assert "say where by --output" in run("eilev-synthetic-opt").output
    done = run(folder, "--overwrite")
    assert done.exit_code == 0 and "license is unknown" in done.output
    assert metadata_of((folder / "README.md").read_text())["license"] == "unknown"


# ------------------------------------------------------------------------------------------------------ code in cards


def run_python_of(text, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in set(re.findall(r"\b\w+\.mp4", text)):
        shutil.copy(CLIPS / "wipes_the_carrot.mp4", name)
    names = {}
    exec("".join(code for language, code, _ in code_blocks(text) if language == "python"), names)
    return names["narrate"]


def test_usage_of_a_made_card(tmp_path, monkeypatch):
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "synthetic").symlink_to(embedded_checkpoint())
    text = str(make_model_card("eilev-synthetic-opt", name="me/synthetic"))
    narrate = run_python_of(text, tmp_path, monkeypatch)
    assert narrate("mixer.mp4")[0]["generated_text"] == "The camera wearer wipes the carrot."


@pytest.mark.parametrize("path", PROPOSED, ids=lambda path: path.stem)
def test_usage_of_a_proposed_card(path, golden_opt, golden_t5, tmp_path, monkeypatch):
    golden = golden_t5 if "t5" in path.stem else golden_opt
    (tmp_path / "kpyu").mkdir()
    (tmp_path / "kpyu" / path.stem).symlink_to(golden.checkpoint)
    narrate = run_python_of(path.read_text(), tmp_path, monkeypatch)
    layout = "prepended" if path.stem.startswith("video-blip") else "interleaved"
    assert narrate.processor.prompt_layout == layout


# ------------------------------------------------------------------------------------------- cards of this repository


def test_cards_of_the_repository_are_sound():
    done = subprocess.run(CHECK, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("6 model cards")


def test_the_list_of_proposals_is_whole():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "model_cards" / "README.md").read_text())
    assert {path.name for path in PROPOSED} < set(links)
    assert all((ROOT / "model_cards" / link).is_file() for link in links)


def test_proposed_figures_are_the_papers():
    """Those of the very model, and no others."""
    assert len(PROPOSED) == 4
    for path in PROPOSED:
        text = path.read_text()
        assert "**A proposal.**" in text and "Yu et al." in text
        assert ("OPT-175B License" in text.replace("\n", " ")) == ("opt" in path.stem)
        results = ModelCard(text).data.eval_results or []
        found = {(r.dataset_type, r.metric_args["condition"], r.metric_args["shots"]): r.metric_value for r in results}
        wanted = {
            (name, cell.condition, cell.shots): cell.mean
            for name, cells in PAPER_FIGURES.items()
            for cell in cells
            if cell.model == "EILEV-OPT"
        }
        assert found == (wanted if path.stem == "eilev-blip2-opt-2.7b" else {})
        shown = [float(value) for value in re.findall(r"(?<=\| )0\.\d{3}(?= \|)", text)]
        assert sorted(shown) == sorted(found.values())


@pytest.mark.parametrize(
    "before, after, fault",
    [
        ("license: mit\n", "", "no `license`"),
        ("license: mit", "license: MIT License", "`license` must be an id"),
        ("license: mit", "license: other", "needs a `license_name`"),
        ("license: mit", "license: other\nlicense_name: own\nlicense_link: LICENSE", "there is no such file"),
        ("language: en", "language: no", "`language` must be a code of ISO 639"),
        ("pipeline_tag: video-text-to-text", "pipeline_tag: video-narration", "`pipeline_tag` must be one of"),
        ("base_model: Salesforce/", "base_model: ", "`base_model` must be a model id"),
        ("language: en", "language: [en", "can't be read"),
        ("\n---\n\n#", "\n\n#", "can't be read"),
        ("---\nbase_model", "base_model", "it has no metadata"),
        ("value: 0.694", "value: high", "must be a number"),
        ("value: 0.694", "value: .nan", "must be a number"),
        ("      type: ego4d-held-out\n", "", "can't be read"),
        ("- name: eilev-blip2-opt-2.7b", "- model: eilev-blip2-opt-2.7b", "can't be read"),
        ("      value: 0.694", "      seen: yes\n      value: 0.694", "says what is lost"),
        (
            "in_context, 1 shot\n      args:\n        condition: in_context\n        shots: 1\n",
            "in_context, 0 shots\n      args:\n        condition: in_context\n        shots: 0\n",
            "two values of STS-BE",
        ),
        (
            "        shots: 16\n    - type: sts_bi_encoder\n      value: 0.688",
            "        shots: 16\n    - value: 0.688",
            "can't",
        ),
        ('narrate("mixer.mp4")', 'narrate("mixer.mp4"', "a block of python can't be read"),
        ("```bibtex", "```", "says no language"),
        ("}\n```\n", "}\n", "has no end"),
        ("## Limits\n", "## Limits\n\n[More Information Needed]\n", "a placeholder was left"),
        ("## Limits\n", "## Limits\n\n[Here](limits.md).\n", "leads to nothing: 'limits.md'"),
        ("(https://ego4d-data.org/)", "(http://ego4d-data.org/)", "must begin with https://"),
        ("`examples/training/run_eilev.py`", "`examples/training/run_elev.py`", "names examples/training/run_elev.py"),
    ],
)
def test_broken_cards_are_found(before, after, fault, tmp_path, capsys, monkeypatch):
    text = (ROOT / "model_cards" / "eilev-blip2-opt-2.7b.md").read_text()
    assert before in text
    broken = tmp_path / "README.md"
    broken.write_text(text.replace(before, after))
    monkeypatch.syspath_prepend(ROOT / "utils")
    import check_cards

    monkeypatch.setattr(sys, "argv", ["check_cards.py", str(broken)])
    with pytest.raises(SystemExit) as ended:
        check_cards.main()
    said = capsys.readouterr().out
    assert ended.value.code == 1 and fault in said and str(broken) in said
