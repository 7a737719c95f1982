"""What is saved is what is loaded, by every door; and other models are left alone."""

import itertools
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_modeling import close
from tiny_models import FAMILIES, NUM_QUERIES, TEXTS, VIDEO, clips_of, decoded, inputs_of, tiny_config, tiny_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForVisualQuestionAnswering,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Model,
)

from transformers_eilev import VideoBlip2Config, VideoBlip2ForConditionalGeneration


ALL_FAMILIES = ["opt", "opt-untied", "flan-t5", "t5"]


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param)


@torch.no_grad()
def logits_of(model, which=(0, 1, 2)):
    inputs = decoded(model, inputs_of(model, which))
    if model.dtype != torch.float32 and "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return model(**inputs).logits


def assert_same_weights(actual, expected):
    actual, expected = actual.state_dict(), expected.state_dict()
    assert actual.keys() == expected.keys()
    for name, weight in expected.items():
        assert actual[name].dtype == weight.dtype and torch.equal(actual[name], weight), name


def is_tied(model):
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# Saving and loading


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_saved_and_loaded_by_every_door(family, tmp_path):
    model = tiny_model(family)
    expected = logits_of(model)
    model.save_pretrained(tmp_path / "first")
    model.save_pretrained(tmp_path / "second")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    for auto_class in (
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        VideoBlip2ForConditionalGeneration,
    ):
        loaded, info = auto_class.from_pretrained(tmp_path / "first", output_loading_info=True)
        assert type(loaded) is VideoBlip2ForConditionalGeneration
        assert not loaded.training
        assert not any(info.values()), info
        assert_same_weights(loaded, model)
        assert torch.equal(logits_of(loaded), expected)
    loaded.save_pretrained(tmp_path / "third")
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("first", "third")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_heads_stay_as_they_are(family, tmp_path):
    """T5's and OPT's are tied to the embedding, Flan-T5's is not."""
    model = tiny_model(family)
    should_be_tied = family in ("opt", "t5")
    model.save_pretrained(tmp_path)
    loaded = VideoBlip2ForConditionalGeneration.from_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("language_model.lm_head.weight" in list(file.keys())) != should_be_tied
    for each in (model, loaded):
        for _ in range(2):
            assert is_tied(each) == should_be_tied
            assert torch.equal(each.get_output_embeddings().weight, each.get_input_embeddings().weight) == (
                should_be_tied
            )
            each.tie_weights()
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(logits_of(copy.eval()), logits_of(model))
    if not family.startswith("opt"):
        stacks = (loaded.language_model.encoder, loaded.language_model.decoder)
        assert all(stack.embed_tokens.weight is loaded.get_input_embeddings().weight for stack in stacks)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_config_round_trip(family, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "video_blip_2"
    assert saved["architectures"] == ["VideoBlip2ForConditionalGeneration"]
    assert saved["video_token_id"] == VIDEO and saved["num_query_tokens"] == NUM_QUERIES
    for config in (AutoConfig.from_pretrained(tmp_path), VideoBlip2Config.from_pretrained(tmp_path)):
        assert type(config) is VideoBlip2Config
        assert config.video_token_id == VIDEO
        assert config.vision_config.to_diff_dict() == model.config.vision_config.to_diff_dict()
        assert config.qformer_config.to_diff_dict() == model.config.qformer_config.to_diff_dict()
        assert config.text_config.to_diff_dict() == model.config.text_config.to_diff_dict()
        if family == "flan-t5":
            assert config.text_config.scale_decoder_outputs is False
            assert config.text_config.dense_act_fn == "gelu_new"
        if family == "t5":
            assert config.text_config.scale_decoder_outputs is True
    again = VideoBlip2Config.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()


def test_activation_of_a_flan_t5_round_trip(tmp_path):
    """Published Flan-T5 say "gelu" beside "gated-gelu", which alone would mean "gelu_new"."""
    config = tiny_config("flan-t5", text={"dense_act_fn": "gelu"})
    torch.manual_seed(0)
    model = VideoBlip2ForConditionalGeneration(config)
    act = type(model.language_model.encoder.block[0].layer[1].DenseReluDense.act)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.text_config.dense_act_fn == model.config.text_config.dense_act_fn
    assert type(loaded.language_model.encoder.block[0].layer[1].DenseReluDense.act) is act
    assert torch.equal(logits_of(loaded), logits_of(model.eval()))


def test_generation_config_round_trip(model, tmp_path):
    model.generation_config.update(num_beams=3, max_new_tokens=4, length_penalty=-1.0, eos_token_id=[5, 6])
    expected = model.generate(**inputs_of(model))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()
    assert torch.equal(loaded.generate(**inputs_of(model)), expected)


def test_shards(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert_same_weights(loaded, model)
    assert torch.equal(logits_of(loaded), logits_of(model))


# Legacy checkpoints


def keys_of(folder):
    index = [json.loads(path.read_text())["weight_map"] for path in folder.glob("*.index.json")]
    if index:
        return set(index[0])
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def golden_outputs(model, golden):
    processor = golden.interleaved
    inputs = processor.pad([processor.encode("<video>Question: What is the camera wearer doing? Answer:")])
    inputs["pixel_values"] = golden.pixel_values[:1]
    with torch.no_grad():
        return model(**decoded(model, inputs)).logits, model.generate(**inputs, max_new_tokens=6, do_sample=False)


def test_legacy_checkpoint_saved_in_the_format_of_today(golden, tmp_path):
    legacy, info = AutoModelForImageTextToText.from_pretrained(golden.checkpoint, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    # Only what newer versions compute themselves.
    assert all(key.endswith("position_ids") for key in info["unexpected_keys"]), info
    logits, generated = golden_outputs(legacy, golden)
    legacy.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "video_blip_2"
    dropped = keys_of(golden.checkpoint) - keys_of(tmp_path)
    assert keys_of(tmp_path) <= keys_of(golden.checkpoint)
    assert dropped <= {
        "language_model.lm_head.weight",  # OPT's, tied
        "language_model.encoder.embed_tokens.weight",
        "language_model.decoder.embed_tokens.weight",
        "qformer.embeddings.position_ids",
    }
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert loaded.generation_config.to_diff_dict() == legacy.generation_config.to_diff_dict()
    assert loaded.config.video_token_id == legacy.config.video_token_id
    again = golden_outputs(loaded, golden)
    assert torch.equal(again[0], logits) and torch.equal(again[1], generated)


def test_sharded_legacy_checkpoint(golden, tmp_path):
    golden.model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(golden.checkpoint / name, tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is VideoBlip2ForConditionalGeneration and not any(info.values()), info
    assert_same_weights(loaded, golden.model)


# Plain BLIP-2


@pytest.fixture
def plain_blip_2(tmp_path):
    config = tiny_config("opt").to_dict()
    config = Blip2Config(
        **{part: config[part] for part in ("vision_config", "qformer_config", "text_config")},
        num_query_tokens=NUM_QUERIES,
        image_token_index=VIDEO - 1,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {str(i): i for i in range(90)}}, "added_tokens": []})
    )
    return model, tmp_path


def test_plain_blip_2_stays_that_of_transformers(plain_blip_2):
    model, path = plain_blip_2
    assert type(AutoConfig.from_pretrained(path)) is Blip2Config
    assert type(AutoConfig.for_model("blip-2")) is Blip2Config
    assert type(AutoConfig.for_model("blip-2", num_query_tokens=5)) is Blip2Config
    for auto_class in (AutoModelForImageTextToText, AutoModelForVisualQuestionAnswering):
        loaded = auto_class.from_pretrained(path)
        assert type(loaded) is Blip2ForConditionalGeneration and type(loaded.config) is Blip2Config
        assert_same_weights(loaded, model)
        assert type(auto_class.from_config(model.config)) is Blip2ForConditionalGeneration
    assert type(AutoModel.from_pretrained(path)) is Blip2Model
    assert type(Blip2ForConditionalGeneration.from_pretrained(path)) is Blip2ForConditionalGeneration


def test_plain_blip_2_as_a_start(plain_blip_2):
    """Loaded by our class, it takes clips: `<video>` is the token after the image's."""
    plain, path = plain_blip_2
    loaded, info = VideoBlip2ForConditionalGeneration.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"] and not info["unexpected_keys"]
    assert type(loaded.config) is VideoBlip2Config and loaded.config.video_token_id == VIDEO
    assert_same_weights(loaded, plain)
    # A clip of one frame is an image.
    clip = clips_of(1, num_frames=1)
    with torch.no_grad():
        video = loaded(input_ids=torch.tensor([TEXTS[1]]), pixel_values=clip).logits
        image_ids = [token - (token == VIDEO) for token in TEXTS[1]]
        image = plain(input_ids=torch.tensor([image_ids]), pixel_values=clip[:, 0]).logits
    close(video, image)
    loaded.save_pretrained(path / "ours")
    assert type(AutoModelForImageTextToText.from_pretrained(path / "ours")) is VideoBlip2ForConditionalGeneration


# Hostile checkpoints


@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_config_chooses_no_code(golden_opt, is_legacy, tmp_path):
    folder = tmp_path / "eilev"
    if is_legacy:
        shutil.copytree(golden_opt.checkpoint, folder)
        model = golden_opt.model
    else:
        model = tiny_model("opt")
        model.save_pretrained(folder)
    module = "evil"
    marker = tmp_path / "was_run"
    (folder / f"{module}.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    auto_map = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForImageTextToText"), f"{module}.Evil")
    hostile = {
        "auto_map": auto_map,
        "attn_implementation": "stranger/kernel",
        "_attn_implementation": "stranger/kernel",
        "_attn_implementation_internal": "stranger/kernel",
    }
    saved = json.loads((folder / "config.json").read_text())
    parts = {name: {**saved[name], **hostile} for name in ("vision_config", "qformer_config", "text_config")}
    change_json(folder / "config.json", **hostile, **parts)
    for auto_class in (AutoModel, AutoModelForImageTextToText, VideoBlip2ForConditionalGeneration):
        loaded = auto_class.from_pretrained(folder)
        assert type(loaded) is VideoBlip2ForConditionalGeneration
        configs = [loaded.config, *(getattr(loaded.config, name) for name in parts), loaded.language_model.config]
        assert {config._attn_implementation for config in configs} == {"sdpa"}
        assert not any(hasattr(config, "auto_map") for config in configs[1:])
        assert_same_weights(loaded, model)
    for config_class in (AutoConfig, VideoBlip2Config):
        config = config_class.from_pretrained(folder)
        assert "stranger" not in repr([config, *(getattr(config, name) for name in parts)])
    loaded.save_pretrained(tmp_path / "saved")
    assert "stranger" not in (tmp_path / "saved" / "config.json").read_text()
    assert not marker.exists()


# Initialization


def test_every_weight_is_initialized():
    """Memory that nobody filled is NaN here."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        for family in ALL_FAMILIES:
            config = tiny_config(family)
            torch.manual_seed(0)
            built = VideoBlip2ForConditionalGeneration(config)
            torch.manual_seed(0)
            from_nothing, info = VideoBlip2ForConditionalGeneration.from_pretrained(
                None, config=config, state_dict={}, output_loading_info=True
            )
            assert {"query_tokens", "language_projection.bias"} <= info["missing_keys"]
            for model in (built, from_nothing):
                for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
                    assert tensor.isfinite().all(), name
                queries = model.query_tokens[0].detach()
                assert queries.std().item() == pytest.approx(0.2, rel=0.3)
                assert not torch.equal(queries[0], queries[1])
                head = model.get_output_embeddings().weight.detach()
                assert is_tied(model) or head.std().item() == pytest.approx(
                    model.get_input_embeddings().weight.std().item(), rel=0.2
                )
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_the_seed_decides_the_weights(family):
    assert_same_weights(tiny_model(family, seed=4), tiny_model(family, seed=4))
    other = tiny_model(family, seed=5)
    for name in ("query_tokens", "language_projection.weight", "language_model.lm_head.weight"):
        assert not torch.equal(tiny_model(family, seed=4).state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("missing", ["query_tokens", "language_model.lm_head.weight", "language_projection.weight"])
def test_missing_weights_are_said_and_initialized(missing, tmp_path):
    model = tiny_model("flan-t5")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = weights.pop(missing)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.use_deterministic_algorithms(True)
    try:
        torch.manual_seed(1)
        loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        torch.manual_seed(1)
        again = AutoModel.from_pretrained(tmp_path)
    finally:
        torch.use_deterministic_algorithms(False)
    assert info["missing_keys"] == {missing}
    new = loaded.state_dict()[missing]
    assert new.isfinite().all() and new.std().item() == pytest.approx(lost.std().item(), rel=0.3)
    assert not is_tied(loaded)
    assert_same_weights(again, loaded)
    for name, weight in weights.items():
        assert torch.equal(loaded.state_dict()[name], weight), name


# Precision


def fp32_parts(model):
    return {name.split(".")[0] for name, weight in model.named_parameters() if weight.dtype == torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, dtype, tmp_path):
    full = logits_of(model)
    model.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == half.vision_model.dtype == half.get_output_embeddings().weight.dtype == dtype
    assert half.language_projection.weight.dtype == dtype
    if dtype == torch.float16:
        assert fp32_parts(half) >= {"qformer", "query_tokens"}
        assert {weight.dtype for weight in half.qformer.parameters()} == {torch.float32}
    logits = logits_of(half).float()
    assert (logits - full).norm() < 0.1 * full.norm()
    inputs = inputs_of(half)  # fp32 pixels, as processors give them
    assert half.generate(**inputs, max_new_tokens=3, num_beams=2).shape[0] == 3
    generated = half.generate(**inputs, max_new_tokens=3)
    half.set_attn_implementation("eager")
    assert half.generate(**inputs, max_new_tokens=3, cache_implementation="static").shape == generated.shape
    half.set_attn_implementation("sdpa")
    half.save_pretrained(tmp_path / "half")
    loaded = AutoModel.from_pretrained(tmp_path / "half", dtype="auto")
    assert_same_weights(loaded, half)
    assert loaded.config.dtype == dtype
    assert_same_weights(AutoModel.from_pretrained(tmp_path / "half"), half)


def test_cast_to_bfloat16(model, tmp_path):
    expected = {name: weight.to(torch.bfloat16) for name, weight in model.state_dict().items()}
    half = model.to(torch.bfloat16)
    assert logits_of(half).isfinite().all()
    half.save_pretrained(tmp_path)
    loaded = VideoBlip2ForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())
    assert torch.equal(logits_of(loaded), logits_of(half))
    assert loaded.float().dtype == torch.float32


# Devices


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_device_map(model, device_map, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, device_map=device_map)
    assert torch.equal(logits_of(loaded), logits_of(model))
    expected = model.generate(**inputs_of(model), max_new_tokens=3)
    assert torch.equal(loaded.generate(**inputs_of(model), max_new_tokens=3), expected)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_weights_on_disk(family, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    parts = ["vision_model", "qformer", "query_tokens", "language_projection"]
    device_map = {**dict.fromkeys(parts, "cpu"), "language_model": "disk"}
    loaded = AutoModel.from_pretrained(tmp_path, device_map=device_map, offload_folder=tmp_path / "offloaded")
    assert loaded.language_model.get_input_embeddings().weight.device.type == "meta"
    close(logits_of(loaded), logits_of(model))
    inputs = inputs_of(model)
    assert torch.equal(loaded.generate(**inputs, max_new_tokens=3), model.generate(**inputs, max_new_tokens=3))


def test_layers_that_may_not_be_split(model):
    """What adds to its own input: on two devices, the sum would have no place."""
    layers = {"Blip2EncoderLayer", "Blip2QFormerLayer"}
    layers |= {"T5Block"} if model.config.is_encoder_decoder else {"OPTDecoderLayer"}
    assert layers <= {type(module).__name__ for module in model.modules()}
    assert layers <= set(model._no_split_modules)


# Import orders


IMPORT_ORDERS = {
    "package first": """
        import transformers_eilev
        assert "transformers_eilev.modeling_video_blip_2" not in sys.modules
        assert "transformers.models.auto.modeling_auto" not in sys.modules
        from transformers import AutoModel as auto_class
        """,
    "package first, pipeline asked for": """
        import transformers_eilev
        from transformers import pipeline
        from transformers.pipelines import PIPELINE_REGISTRY
        assert "video-narration" in PIPELINE_REGISTRY.get_supported_tasks()
        from transformers.models.auto.modeling_auto import AutoModelForImageTextToText as auto_class
        """,
    "one auto class first": """
        from transformers import AutoConfig
        import transformers_eilev
        AutoConfig.from_pretrained(path)
        from transformers import AutoModel as auto_class
        """,
    "inner module first": """
        from transformers.models.auto.modeling_auto import AutoModelForImageTextToText as auto_class
        from transformers.pipelines import pipeline
        import transformers_eilev
        """,
    "our inner module first": """
        import transformers_eilev.modeling_video_blip_2
        from transformers import AutoModel as auto_class
        """,
}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    tiny_model("opt").save_pretrained(path)
    return path


@pytest.mark.parametrize("order", IMPORT_ORDERS)
def test_import_order(order, saved_model):
    lines = ["import sys", "path = sys.argv[1]", *(line.strip() for line in IMPORT_ORDERS[order].split("\n"))]
    lines += ["print(type(auto_class.from_pretrained(path)).__name__)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(saved_model)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "VideoBlip2ForConditionalGeneration"
