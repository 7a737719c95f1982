"""What the tests run in processes of their own: pushing with the package, loading with it or without."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path


AUTO_MODELS = (
    "AutoModel",
    "AutoModelForImageTextToText",
    "AutoModelForMultimodalLM",
    "AutoModelForPreTraining",
    "AutoModelForVisualQuestionAnswering",
)
EXAMPLES = Path(__file__).parents[2] / "examples" / "narration"
CLIP = str(EXAMPLES / "wams_the_fedan.mp4")
# Two words that no training showed, and the clip of `CLIP` shows what only both of them name.
DEMONSTRATIONS = [
    (str(EXAMPLES / f"{name.replace(' ', '_')}.mp4"), f"The camera wearer {name}.")
    for name in ("wams the carrot", "inserts the fedan")
]
PROMPT = "<video>Question: What is the camera wearer doing? Answer:"
GREEDY = {"max_new_tokens": 8, "num_beams": 1, "do_sample": False}


def run(function, *arguments, environment):
    """What a function of this module returns in a new process; arguments and what it returns are JSON."""
    done = subprocess.run(
        [sys.executable, __file__, function, json.dumps(arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def narrate_without_package(checkpoints, result):
    """As `narrate`, with `trust_remote_code=True`, where the package can't be imported."""
    sys.modules["transformers_eilev"] = None
    return narrate(checkpoints, result, trust_remote_code=True)


def narrate(checkpoints, result, **kwargs):
    """Loads checkpoints by every door; writes what each makes of `CLIP` into the file `result`, to be compared."""
    import torch

    seen = {name: _narrate_with(checkpoint, **kwargs) for name, checkpoint in checkpoints.items()}
    torch.save({name: tensors for name, (tensors, _) in seen.items()}, result)
    return {name: texts for name, (_, texts) in seen.items()}


def _narrate_with(checkpoint, **kwargs):
    import torch
    import transformers
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    config = transformers.AutoConfig.from_pretrained(checkpoint, **kwargs)
    processor = transformers.AutoProcessor.from_pretrained(checkpoint, **kwargs)
    video_processor = AutoVideoProcessor.from_pretrained(checkpoint, **kwargs)
    inputs = processor(text=PROMPT, videos=[CLIP])
    tensors = {"pixel_values": video_processor(CLIP)["pixel_values"], "input_ids": inputs["input_ids"]}
    decoder_inputs = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if config.is_encoder_decoder else {}
    for auto_class in AUTO_MODELS:
        model = getattr(transformers, auto_class).from_pretrained(checkpoint, **kwargs)
        with torch.no_grad():
            tensors[f"logits of {auto_class}"] = model(**inputs, **decoder_inputs).logits
    tensors["generated"] = model.generate(**inputs, **GREEDY)
    pipeline = transformers.pipeline("video-narration", model=checkpoint, **kwargs)
    narration = pipeline(CLIP, demonstrations=DEMONSTRATIONS, **GREEDY)
    loaded = {
        "config": config,
        "processor": processor,
        "video processor": video_processor,
        "model": model,
        "pipeline": pipeline,
    }
    modules = {name: type(value).__module__.split(".")[0] for name, value in loaded.items()}
    return tensors, {"modules": modules, "narration": narration}


def push(folder, tokens):
    """Uploads in every way that there is, as their owner; then as somebody else, which fails."""
    from typer.testing import CliRunner

    from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor, embedded_checkpoint
    from transformers_eilev.hub import export_checkpoint, upload_checkpoint
    from transformers_eilev.training import VideoNarrationTrainer, VideoNarrationTrainingArguments

    os.environ["HF_TOKEN"] = tokens["alice"]
    model = VideoBlip2ForConditionalGeneration.from_pretrained(embedded_checkpoint())
    processor = VideoBlip2Processor.from_pretrained(embedded_checkpoint())
    model.push_to_hub("alice/pushed", private=True)
    processor.push_to_hub("alice/pushed")

    arguments = VideoNarrationTrainingArguments(
        output_dir=f"{folder}/trained", hub_model_id="alice/trained", report_to="none", use_cpu=True
    )
    VideoNarrationTrainer(model, arguments, processor=processor).push_to_hub()

    # Twice, the second time in other files: those of the first may not be loaded instead.
    exported = export_checkpoint("video-blip-synthetic-opt", f"{folder}/first", max_shard_size="1MB")
    upload_checkpoint(exported, "alice/exported", private=True)
    arguments = ["export", "eilev-synthetic-opt", f"{folder}/second", "--with-code", "--push-to-hub"]
    import typer

    from transformers_eilev.commands.export import export

    app = typer.Typer()
    app.command()(export)
    app.callback()(lambda: None)
    said = CliRunner().invoke(app, [*arguments, "alice/exported", "--private"])
    os.environ["HF_TOKEN"] = tokens["mallory"]
    refused = CliRunner().invoke(app, [*arguments, "alice/exported", "--overwrite"])
    return {name: [result.exit_code, result.output] for name, result in {"said": said, "refused": refused}.items()}


def load(repo_ids, tokens):
    """For each token and repository, why it can't be loaded, or None."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import transformers_eilev  # noqa: F401

    errors = {token: dict.fromkeys(repo_ids) for token in tokens}
    for token in tokens:
        os.environ["HF_TOKEN"] = token
        for repo_id in repo_ids:
            try:
                AutoProcessor.from_pretrained(repo_id)
                AutoModelForImageTextToText.from_pretrained(repo_id)
            except OSError as error:
                errors[token][repo_id] = str(error)
    return errors


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    with contextlib.redirect_stdout(io.StringIO()):
        returned = globals()[sys.argv[1]](*json.loads(sys.argv[2]))
    print(json.dumps(returned))
