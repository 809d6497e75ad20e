"""The size of the house, counted: ``python -m tests.house [<checkout>]``. docs/architecture.md has the numbers."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


def modules(package: Path) -> dict[str, ast.Module]:
    """Every module of the package by its full name."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        name = ".".join(("mifo_verl", *file.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        found[name] = ast.parse(file.read_text())
    return found


def lines(package: Path, tools: tuple[str, ...]) -> tuple[int, int]:
    """Lines of the core and of the tools."""
    count = Counter()
    for file in package.rglob("*.py"):
        is_tool = file.relative_to(package).parts[0].removesuffix(".py") in tools
        count[is_tool] += len(file.read_text().splitlines())
    return count[False], count[True]


def one_importer(known: dict[str, ast.Module]) -> int:
    """Modules that exactly one other module imports."""
    importers: dict[str, set[str]] = {name: set() for name in known}
    for name, tree in known.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for target in set(targets) & known.keys() - {name}:
                importers[target].add(name)
    return sum(len(by) == 1 for by in importers.values())


def parts(known: dict[str, ast.Module]) -> dict[str, str]:
    """The class of every part that is registered in method/, and its name in its group."""
    found = {}
    for name, tree in known.items():
        if name.startswith("mifo_verl.method."):
            for node in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
                for made in (one for one in node.decorator_list if isinstance(one, ast.Call) and one.args):
                    if ast.unparse(made.func).endswith(".register"):
                        found[node.name] = ast.literal_eval(made.args[0])
    return found


def knows_a_part(known: dict[str, ast.Module]) -> Iterator[str]:
    """Places outside method/ that ask for a part's class, or compare a ``name`` with a part's."""
    members = parts(known)
    for name, tree in known.items():
        if name.startswith("mifo_verl.method"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                asked = {ast.unparse(one) for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)}
                if asked & members.keys():
                    yield f"{name}:{node.lineno} {ast.unparse(node)}"
            elif isinstance(node, ast.Compare) and "name" in ast.unparse(node.left):
                compared = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                if compared & set(members.values()):
                    yield f"{name}:{node.lineno} {ast.unparse(node)}"


def trainers(known: dict[str, ast.Module]) -> dict[str, ast.ClassDef]:
    """Classes that derive from verl's trainer."""
    classes = {node.name: node for tree in known.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    found: dict[str, ast.ClassDef] = {}
    while True:
        new = {
            name: node
            for name, node in classes.items()
            if name not in found and any(ast.unparse(base) in {"PPOTrainerSync", *found} for base in node.bases)
        }
        if not new:
            return found
        found |= new


def shared_attributes(classes: dict[str, ast.ClassDef]) -> int:
    """Attributes that one trainer class assigns and another one uses."""
    assigned, used = {}, {}
    for name, node in classes.items():
        own = [one for one in ast.walk(node) if isinstance(one, ast.Attribute) and ast.unparse(one.value) == "self"]
        assigned[name] = {one.attr for one in own if isinstance(one.ctx, ast.Store)}
        used[name] = {one.attr for one in own}
    return len(
        {attr for name in classes for other in classes if other != name for attr in assigned[name] & used[other]}
    )


def main(checkout: Path) -> None:
    package = checkout / "mifo_verl"
    known = modules(package)
    has_tools = (package / "tools").is_dir()
    old_tools = ("report", "ledger", "inspect", "analyze", "evaluate", "sweep", "demonstrations", "command_line")
    core, tools = lines(package, ("tools",) if has_tools else old_tools)
    classes, places = trainers(known), list(knows_a_part(known))
    print(f"lines of Python: {core + tools} (core {core}, tools {tools})")
    print(f"files: {len(known)}, of which one other file imports: {one_importer(known)}")
    print(f"places outside method/ that know a part: {len(places)}")
    for place in places:
        print(f"  {place}")
    print(f"classes on verl's trainer: {len(classes)}, attributes that they share: {shared_attributes(classes)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
