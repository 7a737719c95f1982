"""What the checkpoints published before this package say of themselves, and what they leave out.

`kpyu/eilev-*` and `kpyu/video-blip-*` carry a BLIP-2 configuration, a BLIP-2 processor and no generation settings.
What they leave out (where the clips stand in the text, which token stands for a clip, how many frames make a clip, how
their authors generated) is settled here, from the files beside the configuration, for the configuration, the
processors and the model alike.
"""

import json
from dataclasses import dataclass

from transformers import PreTrainedConfig
from transformers.utils import cached_file, logging


logger = logging.get_logger(__name__)

LEGACY_ARCHITECTURE = "VideoBlipForConditionalGeneration"

# Rows of the embedding -> (first row without a token, token of "\n"), for checkpoints without a tokenizer beside them.
# facebook/opt-*: 50,265 tokens in 50,272 rows; google/flan-t5-*: 32,100 tokens in 32,128 rows.
_KNOWN_VOCABULARIES = {50272: (50265, 50118), 32128: (32100, None)}
_DEFAULT_VOCAB_SIZE = {"opt": 50272, "t5": 32128}

_HUB_KWARGS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")


@dataclass(frozen=True)
class LegacyCheckpoint:
    """
    What has to be known of a `blip-2` checkpoint to use it as a `video_blip_2` one.

    Attributes:
        is_video_blip (`bool`): It was trained by EILEV's or VideoBLIP's authors, rather than being a plain BLIP-2.
        prompt_layout (`str`): "interleaved" (EILEV) or "prepended" (VideoBLIP).
        is_decoder_only (`bool`): OPT rather than Flan-T5.
        num_query_tokens (`int`): Features a clip.
        video_token_id (`int` or `None`): First row of the embedding that no token uses.
        newline_token_id (`int` or `None`): Token at which EILEV's OPT ends a narration.
    """

    is_video_blip: bool
    prompt_layout: str
    is_decoder_only: bool
    num_query_tokens: int
    video_token_id: int | None
    newline_token_id: int | None

    @property
    def clip_defaults(self) -> dict:
        """Which frames of a video the authors' sample scripts took."""
        if self.prompt_layout == "prepended":
            return {"num_frames": None, "fps": 1, "end": 10.0}
        return {"num_frames": 8, "fps": None, "end": 8.0}

    @property
    def generation_defaults(self) -> dict:
        """How the authors' sample scripts generated (`samples/*_generate_action_narration.py` of yukw777/EILEV)."""
        if self.prompt_layout == "prepended":
            return {
                "num_beams": 4,
                "max_new_tokens": 128,
                "do_sample": True,
                "temperature": 0.7,
                "top_p": 0.9,
                "repetition_penalty": 1.5,
            }
        defaults = {"num_beams": 5, "max_new_tokens": 32, "do_sample": False, "length_penalty": -1.0}
        if self.is_decoder_only and self.newline_token_id is not None:
            # As BLIP-2 does: https://github.com/salesforce/LAVIS, blip2_opt.py
            defaults["eos_token_id"] = self.newline_token_id
        return defaults


def is_video_blip_config(config_dict: dict) -> bool:
    """Whether a `config.json` belongs to a checkpoint of EILEV's or VideoBLIP's authors."""
    return config_dict.get("model_type") == "blip-2" and LEGACY_ARCHITECTURE in (
        config_dict.get("architectures") or []
    )


def read_legacy_checkpoint(pretrained_model_name_or_path, **kwargs) -> LegacyCheckpoint | None:
    """
    Reads a checkpoint's `config.json` and `tokenizer.json`; `None` if it isn't a `blip-2` checkpoint.

    Args:
        pretrained_model_name_or_path (`str` or `os.PathLike`): A folder or a model id on the Hub.
        kwargs: The Hub's keyword arguments of `from_pretrained` (`revision`, `token`, ...), and `prompt_layout` to say
            it instead of having it guessed; others are ignored.
    """
    config_dict, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **only_hub_kwargs(kwargs))
    return describe_legacy_checkpoint(config_dict, pretrained_model_name_or_path, **kwargs)


def describe_legacy_checkpoint(config_dict: dict, name_or_path, **kwargs) -> LegacyCheckpoint | None:
    """As `read_legacy_checkpoint`, for a `config.json` that has been read already."""
    if config_dict.get("model_type") != "blip-2":
        return None
    text_config = config_dict.get("text_config") or {}
    vocab_size = text_config.get("vocab_size") or _DEFAULT_VOCAB_SIZE.get(text_config.get("model_type", "opt"))
    ids = _read_token_ids(name_or_path, **only_hub_kwargs(kwargs)) or _KNOWN_VOCABULARIES.get(vocab_size, (None, None))
    video_token_id, newline_token_id = ids
    image_token_id = config_dict.get("image_token_index")
    if video_token_id is not None and image_token_id is not None:
        video_token_id = max(video_token_id, image_token_id + 1)
    return LegacyCheckpoint(
        is_video_blip=is_video_blip_config(config_dict),
        prompt_layout=kwargs.get("prompt_layout") or _guess_prompt_layout(config_dict, str(name_or_path)),
        is_decoder_only=text_config.get("model_type", "opt") != "t5",
        num_query_tokens=config_dict.get("num_query_tokens", 32),
        video_token_id=video_token_id,
        newline_token_id=newline_token_id,
    )


def upgrade_config_dict(config_dict: dict, name_or_path, **kwargs) -> dict:
    """Today's `config.json` of a checkpoint: unchanged if it is of today, else with what a legacy one left out."""
    legacy = describe_legacy_checkpoint(config_dict, name_or_path, **kwargs)
    if legacy is None:
        return config_dict
    upgraded = {key: value for key, value in config_dict.items() if key != "_name_or_path"}
    return upgraded | {
        "model_type": "video_blip_2",
        "architectures": ["VideoBlip2ForConditionalGeneration"],
        "video_token_id": legacy.video_token_id,
    }


def without_code_fields(config_dict: dict, is_part: bool = False) -> dict:
    """
    A configuration without the fields, at any depth, that choose an attention implementation, or code for a part.

    The `auto_map` of the whole stays: transformers heeds it with `trust_remote_code=True` alone.
    """
    return {
        key: without_code_fields(value, is_part=True) if isinstance(value, dict) else value
        for key, value in config_dict.items()
        if not str(key).lstrip("_").startswith("attn_implementation") and not (is_part and key == "auto_map")
    }


def only_hub_kwargs(kwargs: dict) -> dict:
    """Of `from_pretrained`'s keyword arguments, those that say where files lie."""
    return {key: kwargs[key] for key in _HUB_KWARGS if kwargs.get(key) is not None}


def _guess_prompt_layout(config_dict: dict, name_or_path: str) -> str:
    # Nothing in the files says it. The names of the checkpoints do; of one with another name, the version of
    # transformers that wrote it does: VideoBLIP's were written by 4.29, EILEV's by 4.35.
    for name in (_checkpoint_name(name_or_path), _checkpoint_name(config_dict.get("_name_or_path") or "")):
        if "video-blip" in name or "videoblip" in name:
            return "prepended"
        if "eilev" in name:
            return "interleaved"
    if not is_video_blip_config(config_dict):
        return "interleaved"
    text_config = config_dict.get("text_config") or {}
    version = config_dict.get("transformers_version") or text_config.get("transformers_version") or ""
    return "prepended" if version.startswith("4.2") else "interleaved"


def _checkpoint_name(name_or_path: str) -> str:
    """A model's own name: not that of the folders around it, but of the Hub's cache, where a snapshot has none."""
    *parents, name = name_or_path.rstrip("/\\").replace("\\", "/").split("/")
    cached = [parent for parent in parents if parent.startswith("models--")]
    return (cached[-1].split("--")[-1] if cached else name).lower().replace("_", "-")


def _read_token_ids(name_or_path, **hub_kwargs) -> tuple[int, int | None] | None:
    """The first id without a token, and that of "\\n", or `None` if no `tokenizer.json` lies beside."""
    path = name_or_path and cached_file(
        name_or_path,
        "tokenizer.json",
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub_kwargs,
    )
    if not path:
        return None
    with open(path, encoding="utf-8") as file:
        tokenizer = json.load(file)
    vocab = tokenizer["model"]["vocab"]  # {token: id} for BPE, [[token, score], ...] for Unigram
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    if "<video>" in added:
        first_free = added["<video>"]
    else:
        first_free = 1 + max([len(vocab) - 1, *added.values()])
    newline = vocab.get("Ċ") if isinstance(vocab, dict) else None  # byte-level BPE writes "\n" as "Ċ"
    return first_free, newline
