"""Whether a model card is one that the Hub takes, and whose code and links are sound; without asking the Hub."""

import ast
import json
import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id


# https://huggingface.co/docs/hub/repositories-licenses
# fmt: off
LICENSES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0",
    "eupl-1.1", "eupl-1.2", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0",
    "lgpl-lr", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa",
    "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unknown",
    "unlicense", "wtfpl", "zlib",
}
# fmt: on
# Of https://huggingface.co/tasks those that a model of this package may be found by.
TASKS = {"image-text-to-text", "image-to-text", "video-text-to-text", "visual-question-answering"}
# What forms leave behind that nobody filled in.
_PLACEHOLDERS = re.compile(r"\[more information needed\]|\bTODO\b|\{\{.*?\}\}", re.IGNORECASE)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,8})*|multilingual")
# Of links and pictures, what stands in the parentheses.
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)>\s]+)>?[^)]*\)")


def find_faults(content: str, *, folder: Path | None = None) -> list[str]:
    """
    What is wrong with a model card: metadata that the Hub refuses or that is missing, evaluation results that don't
    come through, code that doesn't compile, links to nothing.

    Args:
        content (`str`): of a README.md, metadata included.
        folder (`Path`, *optional*): where it lies, or shall; with it, files that it links to must be there.

    Returns:
        `list[str]`: a line for each fault; empty if it is sound.
    """
    try:
        # As it is written: `ModelCard` calls the `model-index` otherwise.
        metadata = _metadata_of(content)
        card = ModelCard(content)
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        return [f"its metadata can't be read: {type(error).__name__}: {str(error).splitlines()[0]}"]
    if not metadata:
        return ["it has no metadata: a card begins with a block of YAML between two lines of ---"]
    faults = [*_faults_of_fields(metadata, folder), *_faults_of_results(metadata, card.data)]
    faults += _faults_of_code(card.text)
    if match := _PLACEHOLDERS.search(card.text):
        faults.append(f"a placeholder was left: {match.group()!r}")
    return [*faults, *_faults_of_links(_without_code(card.text), folder)]


def code_blocks(text: str) -> Iterator[tuple[str, str, bool]]:
    """
    The fenced blocks of a Markdown text.

    Yields:
        `tuple[str, str, bool]`: language, code, and whether the block has an end.
    """
    language, lines = None, []
    for line in text.splitlines():
        stripped = line.strip()
        if language is None:
            if stripped.startswith("```"):
                language, lines = stripped.strip("`").strip(), []
        elif stripped == "```":
            yield language, "\n".join(lines) + "\n", True
            language = None
        else:
            lines.append(line)
    if language is not None:
        yield language, "\n".join(lines), False


# ------------------------------------------------------------------------------------------------------------ details


def _metadata_of(content: str) -> dict[str, Any]:
    if not content.startswith("---"):
        return {}
    _, block, _ = re.split(r"^---[ \t]*$", content, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(block) or {}


def _faults_of_fields(metadata: dict[str, Any], folder: Path | None) -> Iterator[str]:
    for name in ("license", "language", "library_name", "pipeline_tag", "tags"):
        if not metadata.get(name):
            yield f"its metadata has no `{name}`"
    yield from _unknown(metadata, "license", lambda value: value in LICENSES, "an id of the Hub's list of licenses")
    if metadata.get("license") == "other":
        for name in ("license_name", "license_link"):
            if not metadata.get(name):
                yield f"`license` is 'other', which needs a `{name}`"
    link = metadata.get("license_link")
    if link and not _is_address(link) and folder is not None and not (folder / link).is_file():
        yield f"`license_link` is {link!r}, but there is no such file"
    yield from _unknown(metadata, "pipeline_tag", lambda value: value in TASKS, f"one of {sorted(TASKS)}")
    yield from _unknown(metadata, "library_name", lambda value: value == "transformers", "'transformers'")
    yield from _unknown(metadata, "language", _LANGUAGE.fullmatch, "a code of ISO 639, such as 'en'")
    yield from _unknown(metadata, "tags", lambda value: bool(value.strip()), "a word")
    yield from _unknown(metadata, "base_model", _is_model_id, "a model id, such as 'Salesforce/blip2-opt-2.7b'")
    yield from _unknown(metadata, "datasets", _is_repo_id, "the id of a data set on the Hub")


def _unknown(metadata: dict[str, Any], name: str, is_known: Callable[[str], Any], what: str) -> Iterator[str]:
    value = metadata.get(name)
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        # YAML makes of some words what they are not: `no`, a language, is False.
        if not isinstance(one, str) or not is_known(one):
            yield f"`{name}` must be {what}, but is {one!r}"


def _is_model_id(value: str) -> bool:
    return value.count("/") == 1 and _is_repo_id(value)


def _is_repo_id(value: str) -> bool:
    try:
        validate_repo_id(value)
    except HFValidationError:
        return False
    return True


def _faults_of_results(metadata: dict[str, Any], data: ModelCardData) -> Iterator[str]:
    index = metadata.get("model-index")
    if index is None:
        return
    if not getattr(data, "eval_results", None):
        yield "its `model-index` can't be read: each result needs a task, a data set and metrics"
        return
    if len(index) != 1:
        yield f"its `model-index` must be of one model, but is of {len(index)}"
    for result in data.eval_results:
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f"`model-index`: {result.metric_name or result.metric_type} must be a number, but is {value!r}"
    written = yaml.safe_load(data.to_yaml())["model-index"]
    if _single_metrics(written) != _single_metrics(index):
        yield "its `model-index` says what is lost when huggingface_hub reads it and writes it again"
    for number, result in enumerate(data.eval_results):
        if any(result.is_equal_except_value(other) for other in data.eval_results[:number]):
            yield f"its `model-index` has two values of {result.metric_name or result.metric_type}"


def _single_metrics(index: Iterable[dict]) -> list[str]:
    """Each metric with all that is said of it, whatever the order and however they are grouped."""
    results = [result for model in index for result in model["results"]]
    singles = [{**result, "metrics": metric} for result in results for metric in result["metrics"]]
    return sorted(json.dumps(single, sort_keys=True, default=str) for single in singles)


def _faults_of_code(text: str) -> Iterator[str]:
    readers: dict[str, Callable[[str], Any]] = {
        "python": ast.parse,
        "bash": lambda code: [shlex.split(line) for line in code.replace("\\\n", " ").splitlines()],
        "json": json.loads,
        "yaml": yaml.safe_load,
    }
    for language, code, is_whole in code_blocks(text):
        first = code.strip().partition("\n")[0]
        if not is_whole:
            yield f"a block of code has no end: {first!r}"
        elif not language:
            yield f"a block of code says no language: {first!r}"
        elif language in readers:
            try:
                readers[language](code)
            except (SyntaxError, ValueError, yaml.YAMLError) as error:
                yield f"a block of {language} can't be read ({error}): {first!r}"


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^\s*```.*?^\s*```\s*$", "", text, flags=re.MULTILINE | re.DOTALL))


def _faults_of_links(text: str, folder: Path | None) -> Iterator[str]:
    for target in _LINK.findall(text):
        path = target.partition("#")[0]
        if _is_address(target) or not path or target.startswith("mailto:"):
            continue
        if "://" in target:
            yield f"a link must begin with https://, but is {target!r}"
        elif Path(path).is_absolute():
            yield f"a link must be relative or an address, but is {target!r}"
        elif folder is not None and not (folder / path).exists():
            yield f"a link leads to nothing: {target!r}"


def _is_address(target: str) -> bool:
    return re.match(r"https://[\w-]+(\.[\w-]+)+", target) is not None


__all__ = ["LICENSES", "TASKS", "code_blocks", "find_faults"]
