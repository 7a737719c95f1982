"""The code that a checkpoint carries to be loaded by transformers alone, with `trust_remote_code=True`.

Transformers copies single files beside each other and finds those that belong together by their `from .name import`.
So does this module, which keeps no list of files: what is carried is what the classes below import.
"""

import ast
from pathlib import Path

from transformers.dynamic_module_utils import get_imports, get_relative_imports

from ..configuration_video_blip_2 import VideoBlip2Config
from ..modeling_video_blip_2 import VideoBlip2ForConditionalGeneration
from ..pipeline_video_narration import VideoNarrationPipeline
from ..processing_video_blip_2 import VideoBlip2Processor
from ..video_processing_video_blip_2 import VideoBlip2VideoProcessor


# What each auto class loads, and in which file it looks for that.
MODEL_CLASSES = {
    "AutoConfig": VideoBlip2Config,
    "AutoModel": VideoBlip2ForConditionalGeneration,
    "AutoModelForImageTextToText": VideoBlip2ForConditionalGeneration,
    "AutoModelForMultimodalLM": VideoBlip2ForConditionalGeneration,
    "AutoModelForPreTraining": VideoBlip2ForConditionalGeneration,
    "AutoModelForVisualQuestionAnswering": VideoBlip2ForConditionalGeneration,
}
PROCESSOR_CLASSES = {"AutoProcessor": VideoBlip2Processor}
VIDEO_PROCESSOR_CLASSES = {"AutoVideoProcessor": VideoBlip2VideoProcessor}
PIPELINES = {"video-narration": (VideoNarrationPipeline, "AutoModelForImageTextToText")}

# What whoever loads such a checkpoint has: transformers and what it needs itself, and PyAV to read video.
ALLOWED_LIBRARIES = {"av", "huggingface_hub", "numpy", "PIL", "torch", "transformers"}


def auto_map_of(classes: dict[str, type]) -> dict[str, str]:
    """What a configuration file says of `classes`: for each auto class, "module.Class"."""
    return {auto_class: _reference_to(cls) for auto_class, cls in classes.items()}


def custom_pipelines() -> dict[str, dict]:
    """What `config.json` says of the pipelines in the code."""
    return {
        task: {"impl": _reference_to(cls), "pt": [auto_class], "type": "multimodal"}
        for task, (cls, auto_class) in PIPELINES.items()
    }


def remote_code_files() -> list[Path]:
    """
    The files that a checkpoint has to carry: those of the classes that transformers looks for, and what they import.

    Raises:
        ValueError: if one imports what lies neither beside it nor in a library, with file and line.
    """
    classes = [*MODEL_CLASSES.values(), *PROCESSOR_CLASSES.values(), *VIDEO_PROCESSOR_CLASSES.values()]
    classes += [cls for cls, _ in PIPELINES.values()]
    folder = Path(__file__).parents[1]
    return closure_of({folder / f"{_module_of(cls)}.py" for cls in classes})


def closure_of(files: set[Path]) -> list[Path]:
    """
    These files and all that they import from beside them, at any depth, sorted by name.

    Raises:
        ValueError: as `imported_files`.
    """
    found, new = set(), set(files)
    while new:
        found |= new
        new = {path for file in new for path in imported_files(file)} - found
    return sorted(found)


def imported_files(file: Path) -> set[Path]:
    """
    What a file imports from beside it.

    Raises:
        ValueError: for an import that a copy of the file in another folder could not do: of a package, of what lies
            in another folder, or of this package by its name.
    """
    package = __name__.partition(".")[0]
    imported = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names, level = [alias.name for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            names, level = [node.module or ""], node.level
        else:
            continue
        neighbour = file.with_name(f"{names[0]}.py")
        if level == 1 and neighbour.is_file():
            imported.add(neighbour)
        elif level or any(name.partition(".")[0] == package for name in names):
            raise ValueError(
                f"{file}, line {node.lineno}: only `from .name import ...` of a file beside it can be carried along "
                f"with a checkpoint, not {ast.unparse(node)!r}"
            )
    return imported


def faults_of(file: Path, standard_library: frozenset[str]) -> list[str]:
    """
    What would keep a carried file from being loaded, a line for each.

    Args:
        file (`Path`): one of `remote_code_files()`.
        standard_library (`frozenset[str]`): names of modules that every Python has (`sys.stdlib_module_names`).
    """
    faults = []
    try:
        compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
        expected = {path.stem for path in imported_files(file)}
    except (SyntaxError, ValueError) as error:
        return [f"{file}: {error}" if isinstance(error, SyntaxError) else str(error)]
    # Transformers looks for text that looks like an import, wherever it stands.
    if misread := set(get_relative_imports(file)) ^ expected:
        faults.append(
            f"{file}: transformers looks for lines that begin with `from .name import` or `import .name`, in texts "
            f"too, and is mistaken about {sorted(misread)}"
        )
    for name in sorted(set(get_imports(file)) - ALLOWED_LIBRARIES - standard_library):
        faults.append(f"{file} imports {name}, which whoever loads a checkpoint need not have")
    return faults


def _module_of(cls: type) -> str:
    return cls.__module__.rpartition(".")[2]


def _reference_to(cls: type) -> str:
    return f"{_module_of(cls)}.{cls.__name__}"
