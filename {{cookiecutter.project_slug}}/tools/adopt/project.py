"""The target project of a notebook: its package, its dependencies, and the names in use."""

import ast
import builtins
import keyword
import re
import sys
import tomllib
from pathlib import Path

LONGEST = 40
RESERVED = {"models", "service", "views", "tests", "docs", "health", "livez", "metrics", "openapi", "readyz"}
# Packages whose distribution name differs from the module name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "jwt": "pyjwt",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
BROUGHT = {
    "werkzeug",
    "jinja2",
    "click",
    "markupsafe",
    "pydantic_core",
    "typing_extensions",
}  # by dependencies


class WrongNameError(Exception):
    """An invalid feature name; the message is one line."""


class Project:
    """The folder of a project."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = next(path.parent for path in sorted((root / "src").glob("*/app.py")))
        self.package = self.source.name
        document = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
        names = [re.split(r"[\[<>=!~; ]", text)[0] for text in document["project"]["dependencies"]]
        self.dependencies = {name.lower().replace("-", "_") for name in names} | BROUGHT

    def lacks(self, module: str) -> str:
        """Return the distribution of a module that the service does not install."""
        top = module.partition(".")[0]
        distribution = DISTRIBUTIONS.get(top, top.lower().replace("_", "-"))
        known = top in sys.stdlib_module_names or distribution.replace("-", "_") in self.dependencies
        return "" if known else distribution

    def tables(self) -> set[str]:
        """Return the tables of the project's models."""
        found = set()
        for path in self.source.rglob("*.py"):
            found |= set(re.findall(r"__tablename__\s*=\s*[\"'](\w+)", path.read_text("utf-8")))
        return found

    def check_name(self, name: str) -> None:
        """Raise `WrongNameError` if no feature can be written under this name."""
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST:
            raise WrongNameError(
                f"NAME={name} is not a valid name: add NAME=churn, with at most {LONGEST} lower-case letters"
            )
        is_word = keyword.iskeyword(name) or keyword.issoftkeyword(name) or hasattr(builtins, name)
        if name in RESERVED or is_word or name in sys.stdlib_module_names:
            raise WrongNameError(f"NAME={name} is reserved: choose another NAME")
        folders = [self.source / name, self.source / f"{name}.py", self.root / "tests" / name]
        checklist = self.root / "docs" / f"adopting-{name}.md"
        for path in [*folders, checklist]:
            if path.exists() or path.is_symlink():
                undo = ", or delete what the last run wrote" if checklist.exists() else ""
                raise WrongNameError(f"{path.relative_to(self.root)} exists: choose another NAME{undo}")
        for path in self.source.rglob("views.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("Blueprint"):
                    continue
                if name in [getattr(each, "value", "") for each in node.args[:1]]:
                    raise WrongNameError(f"{path} has a blueprint {name}: choose another NAME")


def name_of(path: Path) -> str:
    """Return the name of a feature for a file."""
    return re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")
