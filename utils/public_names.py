"""The public names of the package, read from its files without importing them."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PACKAGES = [
    "transformers_eilev",
    *(f"transformers_eilev.{part}" for part in ("data", "evaluation", "hub", "in_context", "training")),
]


@dataclass(frozen=True)
class PublicName:
    """
    A name of a package, and the statement that makes it.

    Attributes:
        package (`str`), name (`str`): such as "transformers_eilev.data" and "load_ego4d".
        path (`Path`): of the module that has it.
        node (`ast.stmt`): a class, a function or an assignment.
    """

    package: str
    name: str
    path: Path
    node: ast.stmt


def public_names(package: str) -> list[PublicName]:
    """The names that a package loads lazily (its `_MODULE_OF`), in the order of the alphabet."""
    folder = SOURCE.joinpath(*package.split("."))
    names = (PublicName(package, name, *_find(folder, module, name)) for name, module in _module_of(folder).items())
    return sorted(names, key=lambda public: (public.name.lower(), public.name))


@cache
def parse(path: Path) -> ast.Module:
    """A file of Python, read once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _module_of(folder: Path) -> dict[str, str]:
    for node in parse(folder / "__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULE_OF":
            return ast.literal_eval(node.value)
    raise ValueError(f"{folder / '__init__.py'} has no `_MODULE_OF`")


def _find(folder: Path, module: str, name: str) -> tuple[Path, ast.stmt]:
    """The file and the statement of a name, also where a module only hands it on."""
    if (folder / module).is_dir():
        return _find(folder / module, _module_of(folder / module)[name], name)
    path = folder / f"{module}.py"
    for node in parse(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return path, node
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in map(ast.unparse, _targets(node)):
            return path, node
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in (alias.name for alias in node.names):
            return _find(folder, node.module, name)
    raise ValueError(f"{path} has no {name}")


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether a class is made by `@dataclass`, with or without settings."""
    return any(ast.unparse(decorator).startswith("dataclass") for decorator in node.decorator_list)


def parameters(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """What a function, or a class when it is made, takes, as it is written: "size: int = 448", "*"."""
    if isinstance(node, ast.ClassDef):
        if is_dataclass(node):
            fields = [own for own in node.body if isinstance(own, ast.AnnAssign)]
            keyword_only = any("kw_only=True" in ast.unparse(decorator) for decorator in node.decorator_list)
            return ["*"] * (keyword_only and bool(fields)) + [_field(own) for own in fields]
        made = [own for own in node.body if isinstance(own, ast.FunctionDef) and own.name == "__init__"]
        return parameters(made[0]) if made else []
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(positional, [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults)]
    if pairs and pairs[0][0].arg in ("self", "cls"):
        del pairs[0]
    named = [pair for pair in zip(arguments.kwonlyargs, arguments.kw_defaults) if not pair[0].arg.startswith("_")]
    parts = [_parameter(*pair) for pair in pairs]
    if arguments.vararg or named:
        parts.append("*" + (ast.unparse(arguments.vararg) if arguments.vararg else ""))
    parts += [_parameter(*pair) for pair in named]
    return parts + (["**" + ast.unparse(arguments.kwarg)] if arguments.kwarg else [])


def _parameter(name: ast.arg, default: ast.expr | None) -> str:
    if default is None:
        return ast.unparse(name)
    return f"{ast.unparse(name)}{' = ' if name.annotation else '='}{ast.unparse(default)}"


def _field(node: ast.AnnAssign) -> str:
    settings = field_settings(node)
    default = settings.get("default", node.value if not settings else None)
    said = f"{ast.unparse(settings['default_factory'])}()" if "default_factory" in settings else None
    if default is not None:
        said = ast.unparse(default)
    return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}" + (f" = {said}" if said else "")


def field_settings(node: ast.AnnAssign) -> dict[str, ast.expr]:
    """What `field(...)` is given."""
    if not isinstance(node.value, ast.Call) or ast.unparse(node.value.func) != "field":
        return {}
    return {setting.arg: setting.value for setting in node.value.keywords}
