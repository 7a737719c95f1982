"""
Checks that documents say what is there: links and pictures, commands and their options, the API reference, and what
docstrings of public names tell. Nothing is run but the programs' own `--help`. Run by `make check`.
"""

import ast
import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from make_api_reference import find_outdated
from public_names import PACKAGES, ROOT, PublicName, is_dataclass, parameters, public_names


# Programs of others, whose options are theirs.
_OTHERS = {"cd", "cp", "export", "ffmpeg", "git", "hf", "jupyter", "mkdir", "sbatch"}
_LAUNCHERS = ("python", "torchrun", "accelerate")
_TENSORS = re.compile(r"\b(\w*Tensor|ndarray)\b")
_FENCE = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def documents() -> list[Path]:
    """The repository's Markdown files."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / line for line in listed if line and (ROOT / line).is_file()]


def check_links(path: Path) -> Iterator[str]:
    """Every relative link and picture of a document is there, headings that it names included."""
    for link in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        target, _, heading = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        place = path.parent / target if target else path
        if not place.exists():
            yield f"{_name(path)}: the link {link} leads nowhere"
        elif heading and place.suffix == ".md" and heading not in _headings(place):
            yield f"{_name(path)}: {target or 'the page'} has no heading #{heading}"


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command in the bash blocks of a document. A call in a substitution is one of its own."""
    for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.findall(r"\$\((.*)\)$", line) or [line]:
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]  # a variable of the command's environment
                if words:
                    yield words


def check_commands(path: Path) -> Iterator[str]:
    """Every command of a document has a program, a sub-command, files and options that exist."""
    for words in commands_of(path.read_text(encoding="utf-8")):
        for fault in _faults_of(words, path.parent):
            yield f"{_name(path)}: `{' '.join(words)[:60]}`: {fault}"


def _faults_of(words: list[str], folder: Path) -> Iterator[str]:
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    files = {word: [place / word for place in (ROOT, folder) if (place / word).exists()] for word in arguments}
    scripts = [word for word in arguments if program in _LAUNCHERS and word.endswith(".py")]
    for word, found in files.items():
        if (word in scripts or re.match(r"(examples|utils|benchmarks|docs|tests)/[\w./-]+$", word)) and not found:
            yield f"there is no {word}"
    if program == "transformers-eilev":
        yield from _command_faults(arguments)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        if arguments and arguments[0] not in targets:
            yield f"the Makefile has no {arguments[0]}"
    elif program == "pip":
        named = re.findall(r"(?:transformers-eilev|\.)\[([\w,]+)\]", " ".join(arguments))
        extras = {extra for names in named for extra in names.split(",")}
        yield from (f"setup.py has no extra {extra}" for extra in sorted(extras - _extras()))
    elif program in _LAUNCHERS:
        for script in scripts[:1]:
            options = arguments[arguments.index(script) + 1 :]
            if files[script] and any(word.startswith("--") for word in options):
                yield from _unknown_options(options, script_options(files[script][0]))
    elif program not in _OTHERS:
        yield f"{program} is no program that is known here"


def _unknown_options(arguments: list[str], known: set[str]) -> Iterator[str]:
    for word in arguments:
        if word.startswith("--") and word.partition("=")[0] not in {*known, "--help"}:
            yield f"there is no option {word}"


def _command_faults(arguments: list[str]) -> Iterator[str]:
    """What the `transformers-eilev` command itself says of its arguments, without being run."""
    import typer.main

    from transformers_eilev.commands import app

    command, names = typer.main.get_command(app), []
    while subcommands := getattr(command, "commands", None):
        if arguments[:1] == ["--help"]:
            return
        if not arguments or arguments[0] not in subcommands:
            yield f"there is no command {' '.join(['transformers-eilev', *names, *arguments[:1]])}"
            return
        names.append(arguments[0])
        command, arguments = subcommands[arguments[0]], arguments[1:]
    options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    yield from _unknown_options(arguments, options)
    required = [own.name for own in command.params if own.param_type_name == "argument" and own.required]
    if not arguments and required:
        yield f"{required[0]} is missing"


@cache
def script_options(script: Path) -> set[str]:
    """The options of a script, as its `--help` lists them. Where a library of it is missing, as its folder says."""
    said = io.StringIO()
    if "parse_arg" not in script.read_text(encoding="utf-8"):
        return set()  # it would run
    before, modules_before = (sys.argv, list(sys.path)), set(sys.modules)
    sys.argv, sys.path[:0] = [str(script), "--help"], [str(script.parent)]
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            runpy.run_path(str(script), run_name="__main__")
    except ImportError:
        for path in script.parent.glob("*.py"):
            said.write(" ".join(re.findall(r"add_argument\(\s*\"(--[\w-]+)", path.read_text(encoding="utf-8"))) + " ")
    finally:
        sys.argv, sys.path[:] = before
        for name in set(sys.modules) - modules_before:  # another script's neighbours may have the same names
            if str(ROOT / "examples") in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
    return set(re.findall(r"--[A-Za-z][\w-]*", said.getvalue()))


@cache
def _extras() -> set[str]:
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    return set(re.findall(r'^(?:    |EXTRAS\[)"(\w+)"(?:: \[|\] =)', text, flags=re.MULTILINE))


@cache
def _headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def check_docstring(public: PublicName) -> Iterator[str]:
    """What a public name takes is said, with the shape of its tensors, and what it raises."""
    node = public.node
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        return
    where, said = f"{_name(public.path)}:{node.lineno}: {public.name}", ast.get_docstring(node) or ""
    if not said:
        yield f"{where} has no docstring"
        return
    taken = [own for own in parameters(node) if not own.startswith("*")]
    helps = isinstance(node, ast.ClassDef) and "metadata=" in ast.unparse(node)
    if taken and not helps and not re.search(r"^(Args|Attributes):", said, flags=re.MULTILINE):
        yield f"{where} takes {re.match(r'[a-z_0-9]+', taken[0]).group()}, but says nothing under Args"
    if any(_TENSORS.search(own.partition(":")[2]) for own in taken) and "shape" not in said:
        yield f"{where} takes tensors, but says no shape"
    if _raises(node) and not re.search(r"^Raises\b", said, flags=re.MULTILINE):
        yield f"{where} raises, but has no Raises"


def _raises(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether the body of a function, or of what makes an object, raises something of its own."""
    if isinstance(node, ast.ClassDef):
        made = ("__post_init__",) if is_dataclass(node) else ("__init__",)
        return any(_raises(own) for own in node.body if isinstance(own, ast.FunctionDef) and own.name in made)
    nested = {id(part) for own in node.body for part in _inner_functions(own)}
    return any(isinstance(own, ast.Raise) and own.exc and id(own) not in nested for own in ast.walk(node))


def _inner_functions(node: ast.AST) -> Iterator[ast.AST]:
    for own in ast.walk(node):
        if isinstance(own, ast.FunctionDef | ast.Lambda):
            yield from ast.walk(own)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def main():
    os.environ["COLUMNS"] = "1000"  # `--help` breaks no option then
    faults = [fault for path in documents() for check in (check_links, check_commands) for fault in check(path)]
    faults += find_outdated(ROOT / "docs" / "api")
    faults += [fault for name in PACKAGES for public in public_names(name) for fault in check_docstring(public)]
    print("\n".join(dict.fromkeys(faults)) or "The documents are consistent.")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
