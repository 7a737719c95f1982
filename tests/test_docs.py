"""The commands and the code of docs/*.md, run as they are printed in the order of each page, and what they say."""

import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

import transformers_eilev
from transformers_eilev import VideoBlip2Config, VideoBlip2ForConditionalGeneration
from transformers_eilev.commands import app


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(bash|python|text)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
# They need a network, a page in a browser, or this very environment.
NOT_RUN = {"installation": ("make", "pip", ".venv/bin/transformers-eilev"), "demos": ("python",)}


@pytest.fixture(scope="module")
def utils():
    """The scripts of utils/, as modules."""
    sys.path.insert(0, str(ROOT / "utils"))
    yield {name: __import__(name) for name in ("check_docs", "make_api_reference", "public_names")}
    sys.path.remove(str(ROOT / "utils"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden_opt, videos_path):
    """A clone, as far as the pages know it, with the clips and checkpoints that they name."""
    folder = tmp_path_factory.mktemp("docs")
    text = "\n".join((DOCS / f"{page}.md").read_text() for page in PAGES)
    for name in set(re.findall(r"(?<![\w/\\])\w+\.mp4", text)):
        (folder / name).symlink_to(videos_path / "good_cfr_bframes.mp4")
    for name in set(re.findall(r"kpyu/[\w.-]+", text)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(golden_opt.checkpoint)
    (folder / "examples").symlink_to(ROOT / "examples")
    for name, content in {
        "damaged.mp4": with_wrong_nal_size(videos_path / "faststart.mp4"),
        "cut_before_its_index.mp4": (videos_path / "truncated_nomoov.mp4").read_bytes(),
    }.items():
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    return folder


def with_wrong_nal_size(path):
    """The size that the original's README quotes for P29_05.MP4, in front of a frame in the middle."""
    import av

    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][150]
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + 4] = (1053738930).to_bytes(4, "big")
    return bytes(data)


@pytest.fixture(scope="module")
def with_clips(folder):
    """What the page on data makes, for those that come after it."""
    run_page("data", folder)
    return folder


@pytest.fixture(autouse=True)
def as_it_was():
    """Programs that are run within this process leave nothing behind."""
    before = os.getcwd(), sys.argv, dict(os.environ), list(sys.path)
    yield
    os.chdir(before[0])
    sys.argv, sys.path[:] = before[1], before[3]
    os.environ.clear()
    os.environ.update(before[2])


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("data", "training", "evaluation")])
def test_a_page(page, folder):
    run_page(page, folder)


@pytest.mark.parametrize("page", ["training", "evaluation"])
def test_a_page_that_needs_clips(page, with_clips):
    run_page(page, with_clips)


def run_page(page, folder):
    os.chdir(folder)
    names, said = {"__name__": "__main__"}, None
    for language, block in BLOCK.findall((DOCS / f"{page}.md").read_text()):
        if language == "text":
            assert said is not None, f"{page}.md: nothing was run before {block!r}"
            for line in block.splitlines():
                wanted = ".*".join(map(re.escape, line.split("...")))
                assert re.search(rf"^{wanted}", said, flags=re.MULTILINE), f"{page}.md: {line!r} is not in {said!r}"
            said = None
            continue
        assert "Error" not in (said or ""), f"{page}.md: {said}"
        said = run_python(block, names) if language == "python" else run_commands(block, NOT_RUN.get(page, ()))
    assert "Error" not in (said or ""), f"{page}.md: {said}"


def run_python(code, names):
    """What it prints, warns and raises, each as it begins a line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(compile(code, "<docs>", "exec"), names)  # noqa: S102
        except Exception as error:  # which the page shows
            print(f"{type(error).__name__}: {error}")
    return "".join(f"{own.category.__name__}: {own.message}\n" for own in caught) + said.getvalue()


def run_commands(block, not_run):
    said = ""
    for line in block.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        if program in not_run:
            continue
        if program == "transformers-eilev":
            result = CliRunner().invoke(app, arguments)
            said += f"{result.stdout}\n{result.stderr}\n"
            assert result.exception is None or isinstance(result.exception, SystemExit), (line, result.exception)
            assert result.exit_code == 0 or "Error: " in result.output, (line, result.output)
        else:
            assert program == "python", line
            printed = io.StringIO()
            sys.argv = arguments
            with contextlib.redirect_stdout(printed):
                runpy.run_path(arguments[0], run_name="__main__")
            said += printed.getvalue()
    return said


def test_without_the_package_a_checkpoint_is_plain_blip_2(golden_opt):
    """What the page on troubleshooting warns of."""
    code = """
        import sys
        from transformers import AutoModelForImageTextToText, pipeline
        print(type(AutoModelForImageTextToText.from_pretrained(sys.argv[1])).__name__)
        try:
            pipeline("video-narration", model=sys.argv[1])
        except KeyError as error:
            print(error)
    """
    code = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    result = subprocess.run([sys.executable, "-c", code, golden_opt.checkpoint], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Blip2ForConditionalGeneration\n")
    assert "Unknown task video-narration" in result.stdout


@pytest.mark.usefixtures("unpacked_4bit")
@pytest.mark.parametrize("settings", [{"load_in_8bit": True}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}])
def test_narrations_in_few_bits(settings):
    """As the page on troubleshooting has it."""
    import torch
    from transformers import BitsAndBytesConfig, pipeline

    config = BitsAndBytesConfig(**settings, bnb_4bit_compute_dtype=torch.float32)
    narrate = pipeline(
        "video-narration",
        model=transformers_eilev.embedded_checkpoint(),
        model_kwargs={"quantization_config": config},
        device_map="cpu",
    )
    carrot, wams, fedan, both = (
        str(ROOT / "examples" / "narration" / f"{name}.mp4")
        for name in ("wipes_the_carrot", "wams_the_carrot", "inserts_the_fedan", "wams_the_fedan")
    )
    shown = [(wams, "The camera wearer wams the carrot."), (fedan, "The camera wearer inserts the fedan.")]
    assert narrate(carrot)[0]["generated_text"] == "The camera wearer wipes the carrot."
    assert narrate(both, demonstrations=shown)[0]["generated_text"] == "The camera wearer wams the fedan."


def test_numbers_on_memory():
    import torch

    config = json.loads(
        (ROOT / "tests/fixtures/golden/hub_configs/kpyu--eilev-blip2-opt-2.7b.config.json").read_text()
    )
    with torch.device("meta"):
        model = VideoBlip2ForConditionalGeneration(VideoBlip2Config.from_dict(config))
    number = sum(parameter.numel() for parameter in model.parameters())
    text, vision = model.config.text_config, model.config.vision_config
    cached = 2 * 2 * text.num_hidden_layers * text.hidden_size
    patches = 1 + (vision.image_size // vision.patch_size) ** 2
    learning = [model.qformer, model.language_projection]
    said = (DOCS / "troubleshooting.md").read_text()
    for what in (
        f"weights, {number / 1e9:.2f} billion | {4 * number / 1e9:.1f} GB in float32, {2 * number / 1e9:.1f} GB in 16",
        f"key-value cache | {cached / 2**10:.0f} KiB",
        f"about 970 tokens, {970 * cached / 2**20:.0f} MiB",
        f"each with its copy | {8 * 5 * 970 * cached / 2**30:.0f} GiB",
        f"8 frames of 224x224 | {4 * 8 * 3 * vision.image_size**2 / 1e6:.1f} MB in float32",
        f"{2 * 17 * 8 * patches * vision.intermediate_size / 1e6:.0f} MB in 16 bits",
        f"OPT reads {text.max_position_embeddings:,} tokens",
    ):
        assert what in said, what
    share = sum(parameter.numel() for part in learning for parameter in part.parameters())
    assert f"{share / 1e9:.2f} of OPT-2.7B's {number / 1e9:.1f} billion" in (DOCS / "training.md").read_text()


def test_extras_and_version_are_those_of_the_package():
    table = re.findall(r"^\| `(\w+)` \|", (DOCS / "installation.md").read_text(), flags=re.MULTILINE)
    extras = re.findall(r'^(?:    |EXTRAS\[)"(\w+)"(?:: \[|\] =)', (ROOT / "setup.py").read_text(), flags=re.MULTILINE)
    # Of the parts of "dev" nobody but developers has a use.
    assert set(table) == set(extras) - {"quality", "test"}
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, flags=re.MULTILINE).group(1) == transformers_eilev.__version__


def test_every_page_is_in_the_index():
    assert set(re.findall(r"\]\((\w+)\.md\)", (DOCS / "index.md").read_text())) == set(PAGES) - {"index"}


def test_faults_of_documents_are_found(tmp_path, utils):
    page = tmp_path / "page.md"
    page.write_text(
        """
# A page
[there](page.md#a-page) [no heading](page.md#b) [nowhere](nowhere.md) ![no picture](no.png) [web](https://x.y)
```bash
transformers-eilev narrate cup.mp4 --frames a.png
transformers-eilev narrate cup.mp4 --number 3
transformers-eilev data shake x
python examples/data/run_training_batch.py clips --num_examples 2 --examples 3
python examples/nowhere.py
torchrun --nproc_per_node=8 examples/data/run_training_batch.py clips --batch 2
make coffee
pip install ".[data,milk]" ".[tea]"
brew install it
job=$(sbatch --parsable examples/slurm/nothing.sbatch)
```
"""
    )
    check = utils["check_docs"]
    faults = [fault.split(": ", 1)[1] for fault in [*check.check_links(page), *check.check_commands(page)]]
    assert [fault.rpartition("`: ")[2] for fault in faults] == [
        "page.md has no heading #b",
        "the link nowhere.md leads nowhere",
        "the link no.png leads nowhere",
        "there is no option --number",
        "there is no command transformers-eilev data shake",
        "there is no option --examples",
        "there is no examples/nowhere.py",
        "there is no option --batch",
        "the Makefile has no coffee",
        "setup.py has no extra milk",
        "setup.py has no extra tea",
        "brew is no program that is known here",
        "there is no examples/slurm/nothing.sbatch",
    ]


DOCUMENTED = '''
def narrate(pixels: torch.Tensor, *, number=3):
    """
    Says it.

    Args:
        pixels (`torch.Tensor` of shape `(3, 4)`): seen.

    Raises:
        ValueError: if it can't.
    """
    raise ValueError("no")
'''


@pytest.mark.parametrize(
    "left_out, fault",
    [
        ("", None),
        ("Args:", "takes pixels, but says nothing under Args"),
        ("of shape", "takes tensors, but says no shape"),
        ("Raises:", "raises, but has no Raises"),
        ('"""', "has no docstring"),
    ],
)
def test_faults_of_docstrings_are_found(left_out, fault, utils):
    import ast

    code = DOCUMENTED if left_out != '"""' else re.sub(r'""".*?"""', "pass", DOCUMENTED, flags=re.DOTALL)
    node = ast.parse(code.replace(left_out or "@", "")).body[0]
    public = utils["public_names"].PublicName("transformers_eilev", "narrate", ROOT / "src/x.py", node)
    faults = list(utils["check_docs"].check_docstring(public))
    assert faults == ([] if fault is None else [f"src/x.py:2: narrate {fault}"])


def test_the_reference_has_all_public_names_and_their_signatures(utils):
    """What is read from the files is what the imported package has."""
    import inspect

    pages = utils["make_api_reference"].make_pages()
    for package in utils["public_names"].PACKAGES:
        module = importlib.import_module(package)
        text = pages[f"{package}.md"]
        assert sorted(re.findall(r"^## `(\w+)`", text, flags=re.MULTILINE)) == sorted(module.__all__)
        for public in utils["public_names"].public_names(package):
            value = getattr(module, public.name)
            if inspect.isfunction(value):
                parts = utils["public_names"].parameters(public.node)
                written = [re.match(r"\**(\w*)", part).group(1) for part in parts if part != "*"]
                assert written == [name for name in inspect.signature(value).parameters if not name.startswith("_")]


def test_an_outdated_reference_is_found(tmp_path, utils):
    make = utils["make_api_reference"]
    for name, text in make.make_pages().items():
        (tmp_path / name).write_text(text)
    assert make.find_outdated(tmp_path) == []
    (tmp_path / "transformers_eilev.hub.md").write_text("# Of yesterday")
    shutil.copy(tmp_path / "transformers_eilev.hub.md", tmp_path / "transformers_eilev.gone.md")
    assert len(make.find_outdated(tmp_path)) == 2
