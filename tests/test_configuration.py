"""The configuration: what legacy files say, what they leave out, and what is refused."""

import copy
import json
from pathlib import Path

import pytest
from transformers import AutoConfig, Blip2Config

from transformers_eilev import VideoBlip2Config


FIXTURES = Path(__file__).parent / "fixtures"


HUB_CONFIGS = FIXTURES / "golden" / "hub_configs"


def legacy(name):
    return json.loads((HUB_CONFIGS / name).read_text())


@pytest.fixture
def published(tmp_path):
    """The folder of a checkpoint with the published EILEV's `config.json`, and nothing beside it."""
    folder = tmp_path / "eilev-blip2-opt-2.7b"
    folder.mkdir()
    (folder / "config.json").write_text((HUB_CONFIGS / "kpyu--eilev-blip2-opt-2.7b.config.json").read_text())
    return folder


@pytest.mark.parametrize("load", [AutoConfig.from_pretrained, VideoBlip2Config.from_pretrained])
def test_the_published_configuration(published, load):
    config = load(published)
    assert type(config) is VideoBlip2Config
    assert config.model_type == "video_blip_2"
    # 50,265 tokens in 50,272 rows: the first row that no token uses
    assert (config.text_config.vocab_size, config.video_token_id) == (50272, 50265)
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.layer_norm_eps) == (1408, 39, 1e-6)
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (2560, 32, 32)
    assert (config.num_query_tokens, config.qformer_config.encoder_hidden_size) == (32, 1408)
    assert config.use_decoder_only_language_model and not config.is_encoder_decoder


def test_configurations_written_by_transformers_4_29():
    """They list every value of their time, which stays: the vision model's epsilon, T5's activation."""
    config = VideoBlip2Config.from_dict(legacy("video-blip-style-t5.config.json"))
    assert config.vision_config.layer_norm_eps == 1e-5
    assert config.text_config.dense_act_fn == "gelu"
    assert config.is_encoder_decoder and not config.text_config.scale_decoder_outputs


def test_without_a_tokenizer_beside_it_known_vocabularies_are_known():
    flan = legacy("video-blip-style-t5.config.json")
    flan["text_config"]["vocab_size"] = 32128
    assert VideoBlip2Config.from_dict(flan).video_token_id == 32100
    flan["text_config"]["vocab_size"] = 1000
    assert VideoBlip2Config.from_dict(flan).video_token_id is None


def test_save_and_load(published, tmp_path):
    config = AutoConfig.from_pretrained(published)
    config.save_pretrained(tmp_path / "first")
    loaded = AutoConfig.from_pretrained(tmp_path / "first")
    assert type(loaded) is VideoBlip2Config
    loaded.save_pretrained(tmp_path / "second")
    first, second = ((tmp_path / name / "config.json").read_text() for name in ("first", "second"))
    assert first == second
    assert json.loads(first)["model_type"] == "video_blip_2"
    assert "VideoBlipForConditionalGeneration" not in first


def test_plain_blip_2_stays_transformers_own(published, tmp_path):
    config = json.loads((published / "config.json").read_text())
    config["architectures"] = ["Blip2ForConditionalGeneration"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(AutoConfig.from_pretrained(tmp_path)) is Blip2Config
    assert type(AutoConfig.for_model("blip-2")) is Blip2Config
    explicit = VideoBlip2Config.from_pretrained(tmp_path)
    assert (type(explicit), explicit.video_token_id) == (VideoBlip2Config, 50265)


def test_the_next_row_after_an_image_token(tmp_path):
    """Of a BLIP-2 checkpoint that has its own token for images."""
    config = legacy("kpyu--eilev-blip2-opt-2.7b.config.json")
    config |= {"architectures": ["Blip2ForConditionalGeneration"], "image_token_index": 50265}
    assert VideoBlip2Config.from_dict(config).video_token_id == 50266


@pytest.mark.parametrize("today", [True, False])
def test_a_configuration_chooses_no_code(published, today):
    hostile = json.loads((published / "config.json").read_text())
    if today:
        hostile = AutoConfig.from_pretrained(published).to_dict()
    plain = VideoBlip2Config.from_dict(copy.deepcopy(hostile)).to_dict()
    hostile["text_config"]["auto_map"] = {"AutoConfig": "evil.Config"}
    for part in (hostile, hostile["text_config"], hostile["vision_config"]):
        part["attn_implementation"] = part["_attn_implementation"] = "evil/kernel"
        part["_attn_implementation_internal"] = "evil/kernel"
    config = VideoBlip2Config.from_dict(hostile)
    assert config.to_dict() == plain
    for part in (config, config.text_config, config.vision_config, config.qformer_config):
        assert part._attn_implementation is None


@pytest.mark.parametrize("video_token_id", [-1, 50272])
def test_a_token_without_a_row_is_an_error(video_token_id):
    with pytest.raises(ValueError, match="50272"):
        VideoBlip2Config(video_token_id=video_token_id)


def test_a_new_configuration():
    config = VideoBlip2Config(text_config={"model_type": "t5", "tie_word_embeddings": False}, num_query_tokens=8)
    assert (config.num_query_tokens, config.video_token_id) == (8, None)
    assert type(AutoConfig.for_model("video_blip_2")) is VideoBlip2Config
