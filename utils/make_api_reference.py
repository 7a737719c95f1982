"""
Writes docs/api/*.md, a page for each public package, from signatures and docstrings. It reads the files and imports
nothing, so that the pages are the same on every machine.

    python utils/make_api_reference.py
    python utils/make_api_reference.py --check
"""

import argparse
import ast
import re
import sys
from pathlib import Path

from public_names import PACKAGES, ROOT, SOURCE, PublicName, field_settings, parameters, parse, public_names


# Sections whose entries are names with what they are; other sections are text.
_LISTS = ("Args", "Attributes", "Raises", "Warns")
_SECTION = re.compile(rf"({'|'.join(_LISTS)}|Returns|Yields|Example|Raises, warns):\s*(.*)")
_REFERENCE = re.compile(r"\[`~?([\w.]+)`\]")
_WIDTH = 100


def _help_of(node: ast.ClassDef) -> list[str]:
    """A line for each field of a dataclass of arguments, whose help is in its metadata."""
    lines = []
    for own in node.body:
        metadata = field_settings(own).get("metadata") if isinstance(own, ast.AnnAssign) else None
        for key, value in zip(metadata.keys, metadata.values) if isinstance(metadata, ast.Dict) else ():
            if ast.literal_eval(key) == "help":
                parts = value.values if isinstance(value, ast.JoinedStr) else [value]
                said = "".join(part.value if isinstance(part, ast.Constant) else "..." for part in parts)
                lines.append(f"- `{ast.unparse(own.target)}`: {said}")
    return lines


def _signature(name: str, node: ast.ClassDef | ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if isinstance(node, ast.FunctionDef) and node.returns else ""
    parts = parameters(node)
    line = f"{name}({', '.join(parts)}){returns}"
    if len(line) > _WIDTH:
        line = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"
    return f"```python\n{line}\n```"


def _markdown(docstring: str | None, links: dict[str, str]) -> str:
    """A docstring as Markdown: its sections with a bold heading, their entries as a list."""
    lines, is_list, is_code = [], False, False
    for line in (docstring or "").splitlines():
        section = None if is_code else _SECTION.fullmatch(line)
        if section:
            name, rest = section.groups()
            is_list = name in _LISTS
            lines += [f"**{name}:**" + (f" {rest}" if rest else ""), ""]
            continue
        if line and not line.startswith(" ") and not is_code:
            is_list = False
        if not is_code and line.strip().startswith("```"):
            is_list = False
        is_code ^= line.strip().startswith("```")
        if is_list and line.startswith("    "):
            line = line[4:]
            line = f"  {line.strip()}" if line.startswith("    ") else f"- {line}"
        elif line.startswith("    ") and not is_code:
            line = line[4:]
        lines.append(line)

    def link(reference: re.Match) -> str:
        name = reference.group(1)
        target = links.get(name.split(".")[-1])
        return f"[`{name.split('.')[-1]}`]({target})" if target else f"`{name}`"

    return re.sub(r"\n{3,}", "\n\n", _REFERENCE.sub(link, "\n".join(lines))).strip()


def _entry(public: PublicName, links: dict[str, str]) -> list[str]:
    node, place = public.node, public.path.relative_to(ROOT).as_posix()
    parts = [f"## `{public.name}`"]
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        value = ast.unparse(node)
        value = value if len(value) <= 4 * _WIDTH else f"{public.name} = ..."
        return [*parts, f"```python\n{value}\n```", f"A constant of [{place}](../../{place})."]
    parts += [_signature(public.name, node), _markdown(ast.get_docstring(node), links)]
    if isinstance(node, ast.ClassDef):
        if helps := _help_of(node):
            parts.append("\n".join(helps))
        for own in node.body:
            is_public = isinstance(own, ast.FunctionDef) and (own.name == "__call__" or not own.name.startswith("_"))
            if is_public and ast.get_docstring(own):
                parts.append(f"### `{public.name}.{own.name}`")
                is_property = any(ast.unparse(decorator) == "property" for decorator in own.decorator_list)
                if not is_property:
                    parts.append(_signature(own.name, own))
                parts.append(_markdown(ast.get_docstring(own), links))
        if bases := [ast.unparse(base) for base in node.bases]:
            parts.append(f"A subclass of {', '.join(f'`{base}`' for base in bases)}.")
    return [*parts, f"In [{place}](../../{place})."]


def make_pages() -> dict[str, str]:
    """Names of the pages of docs/api, and their text."""
    names = {package: public_names(package) for package in PACKAGES}
    links = {own.name: f"{package}.md#{own.name.lower()}" for package in PACKAGES for own in names[package]}
    pages = {}
    for package in PACKAGES:
        module = parse(SOURCE.joinpath(*package.split("."), "__init__.py"))
        parts = [f"# `{package}`", _markdown(ast.get_docstring(module), links)]
        parts.append("\n".join(f"- [`{own.name}`](#{own.name.lower()})" for own in names[package]))
        parts += [part for own in names[package] for part in _entry(own, links)]
        pages[f"{package}.md"] = "\n\n".join(part for part in parts if part) + "\n"
    return pages


def find_outdated(folder: Path) -> list[str]:
    """What of `folder` is not as `make_pages` makes it, a line each."""
    pages = make_pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    wrong = sorted(name for name in {*pages, *there} if pages.get(name) != there.get(name))
    return [f"docs/api/{name} is not up to date: python utils/make_api_reference.py" for name in wrong]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="say whether the pages are up to date, and write nothing")
    folder = ROOT / "docs" / "api"
    if parser.parse_args().check:
        outdated = find_outdated(folder)
        print("\n".join(outdated) or "The API reference is up to date.")
        sys.exit(bool(outdated))
    pages = make_pages()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
