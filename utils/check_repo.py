"""
Checks what no linter does: that versions agree, that pins are within the ranges asked for, that public names say what
they are, and that files can be read in one sitting. Run by `make check`.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version


ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 620


def tracked_files(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def check_versions():
    """The version is one in setup.py, the package and the changelog."""
    in_setup = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text()).group(1)
    in_package = re.search(r'__version__ = "([^"]+)"', (ROOT / "src/transformers_eilev/__init__.py").read_text())
    if in_package.group(1) != in_setup:
        yield f"setup.py says version {in_setup}, the package {in_package.group(1)}"
    if in_setup not in (ROOT / "CHANGELOG.md").read_text():
        yield f"CHANGELOG.md has nothing on version {in_setup}"


def check_constraints():
    """Every requirement of setup.py is pinned in constraints.txt, within its range."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[name.lower()] = Version(version)
    tree = ast.parse((ROOT / "setup.py").read_text())
    literals = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    wanted = [
        literal for literal in literals if re.fullmatch(r"[a-z][a-z-]+(\[[a-z]+\])?([<>=!~]=?[\d.,<>=]+)?", literal)
    ]
    for requirement in map(Requirement, wanted):
        if requirement.specifier and requirement.name not in pins:
            yield f"constraints.txt does not pin {requirement.name}, which setup.py asks for"
        elif requirement.name in pins and pins[requirement.name] not in requirement.specifier:
            yield f"constraints.txt pins {requirement.name} {pins[requirement.name]}, setup.py wants {requirement}"


def check_docstrings():
    """Every module, and every public class and function of a module, says what it is."""
    for path in tracked_files("src/*.py", "benchmarks/*.py", "examples/*.py", "utils/*.py"):
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            yield f"{path.relative_to(ROOT)} has no docstring"
        for node in tree.body:
            is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef) and "src" in path.parts
            if is_definition and not node.name.startswith("_") and not ast.get_docstring(node):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has no docstring"


def check_sizes():
    """No file is longer than one reads in a sitting."""
    for path in tracked_files("*.py"):
        lines = len(path.read_text().splitlines())
        if lines > MAX_LINES:
            yield f"{path.relative_to(ROOT)} has {lines} lines, more than {MAX_LINES}"


def main():
    faults = [
        fault for check in (check_versions, check_constraints, check_docstrings, check_sizes) for fault in check()
    ]
    print("\n".join(faults) or "The repository is consistent.")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
