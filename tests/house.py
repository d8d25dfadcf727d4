"""`make house`: how large the house is, and how its rooms hang together, by its imports."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import grimp

FOLDER = Path(__file__).parent.parent / "plugin" / "thoracle"
ROOT = "thoracle"
BUNDLE = f"{ROOT}.monai_bundle"
"""No room: it is data, and lies beside the package."""


def room_of(module: str) -> str:
    """Return the room of a module: the folder or file right below the package."""
    return module.split(".")[1] if "." in module else module


def house() -> Iterator[tuple[str, object]]:
    """Yield each figure with its name. Imports that only types need are not counted."""
    graph = grimp.build_graph(ROOT, exclude_type_checking_imports=True, cache_dir=None)
    modules = sorted(name for name in graph.modules if not name.startswith(BUNDLE))
    links = [(a, b) for a in modules for b in graph.find_modules_directly_imported_by(a)]
    links = [(a, b) for a, b in links if b in modules]
    pairs = {(room_of(a), room_of(b)) for a, b in links if ROOT not in (a, b)}
    lines = {path: len(path.read_text().splitlines()) for path in FOLDER.rglob("*.py")}
    yield "rooms", len({room_of(name) for name in modules} - {ROOT})
    yield "modules", len(modules)
    own = [name for name in modules if len(name.split(".")) > 2 and ".migrations" not in name]
    yield "of which files of a room", sum(name not in parents(modules) for name in own)
    yield "lines", sum(lines.values())
    longest = max(lines, key=lambda path: lines[path])
    yield "longest module", f"{longest.relative_to(FOLDER)}, {lines[longest]} lines"
    yield "class names used twice", ", ".join(names_used_twice(lines)) or "none"
    yield "pairs of importing rooms", len({pair for pair in pairs if pair[0] != pair[1]})
    yield "circles of rooms", shown(circles(pairs))
    yield "circles of modules", shown(circles(set(links)))
    most, number = Counter(a for a, b in pairs if a != b).most_common(1)[0]
    yield "imports most rooms", f"{most}, {number}"


def parents(modules: list[str]) -> set[str]:
    """Return the modules that are folders."""
    return {name.rpartition(".")[0] for name in modules}


def names_used_twice(paths: Iterable[Path]) -> list[str]:
    """Return the names that more than one class has, nested ones too."""
    found = Counter(
        node.name
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    return sorted(name for name, number in found.items() if number > 1)


def circles(links: set[tuple[str, str]]) -> list[list[str]]:
    """Return the names that reach themselves, those together that reach each other."""
    reached: dict[str, set[str]] = {}
    for start in {a for a, b in links if a != b}:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            here = waiting.pop()
            new = {b for a, b in links if a == here and b != here} - seen
            seen |= new
            waiting += new
        reached[start] = seen
    groups = {
        tuple(sorted(b for b in reached[a] if a in reached.get(b, ())))
        for a in reached
        if a in reached[a]
    }
    return [list(group) for group in sorted(groups)]


def shown(found: list[list[str]]) -> str:
    """Return circles as text."""
    return "; ".join(" <-> ".join(group) for group in found) or "none"


def main() -> None:
    """Print the figures."""
    for name, value in house():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
