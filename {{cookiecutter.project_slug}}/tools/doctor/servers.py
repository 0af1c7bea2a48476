"""The server configuration next to the code, as far as it determines the level of a hazard."""

import ast
import configparser
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .sources import Place

COMMANDS = ("Dockerfile", "Procfile")
GUNICORN = ("gunicorn.conf.py", "gunicorn_config.py", "gunicorn.py")


class Setting(NamedTuple):
    """A server setting, and its place."""

    text: str
    place: Place


class Deployment(NamedTuple):
    """The settings that matter; None where no server's configuration was found."""

    preload: Setting | None = None  # the code is loaded before the server forks
    no_threads: Setting | None = None  # uWSGI does not run the threads of the code

    def __str__(self) -> str:
        return self.preload.text if self.preload else ""


def read_deployment(paths: Iterable[Path]) -> Deployment:
    """Return the deployment described by files next to these paths."""
    preload = no_threads = None
    for file in find_files(paths):
        found = read_file(file)
        preload = preload or found.preload
        no_threads = no_threads or found.no_threads
    return Deployment(preload, no_threads)


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the configuration files next to each path, or in the nearest folder of its project with one."""
    for start in dict.fromkeys(path if path.is_dir() else path.parent for path in map(Path.resolve, paths)):
        above = [start, *start.parents]
        depth = next((number for number, folder in enumerate(above) if is_project(folder)), 0)
        for folder in above[: depth + 1]:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_file())
            found = [folder / name for name in names if is_configuration(folder, name)]
            yield from found
            if found:
                break


def is_configuration(folder: Path, name: str) -> bool:
    """Return whether a file configures a server."""
    if name.endswith(".ini"):
        return "[uwsgi]" in (folder / name).read_text("utf-8", errors="replace")
    return name in {*GUNICORN, *COMMANDS}


def is_project(folder: Path) -> bool:
    """Return whether a folder is the root of a project."""
    return any((folder / name).exists() for name in (".git", "pyproject.toml", "setup.py"))


def read_file(file: Path) -> Deployment:
    """Return the deployment that one file describes."""
    text = file.read_text("utf-8", errors="replace")
    if file.suffix == ".ini":
        return read_uwsgi(text, relative(file))
    if file.name in COMMANDS:
        return read_command(text, relative(file))
    return read_gunicorn(text, relative(file))


def relative(file: Path) -> str:
    """Return a path relative to the current folder, if it is below it."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def read_uwsgi(text: str, shown: str) -> Deployment:
    """Return the settings of uwsgi.ini: without lazy-apps, the master loads the code and then forks."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=("=",))
    try:
        parser.read_string(text)
        options = {name.replace("_", "-"): value for name, value in parser["uwsgi"].items()}
    except configparser.Error:
        return Deployment()
    place = Place(shown, None, text[: text.index("[uwsgi]")].count("\n") + 1, 1)

    def is_on(*names: str) -> bool:
        return any(
            (options.get(name, "false") or "true").strip().lower() in {"true", "1", "yes", "on"}
            for name in names
        )

    forks = any((options.get(name) or "1").strip() != "1" for name in ("processes", "workers")) or is_on(
        "master"
    )
    preload = forks and not is_on("lazy-apps", "lazy", "lazy-app")
    threads = is_on("enable-threads") or (options.get("threads") or "1").strip() not in {"0", "1"}
    return Deployment(
        Setting("uWSGI loads the code before it forks (no lazy-apps)", place) if preload else None,
        None if threads else Setting("uWSGI runs no threads of the code (no enable-threads)", place),
    )


def read_gunicorn(text: str, shown: str) -> Deployment:
    """Return the settings of gunicorn's configuration; a non-constant expression may be true."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return Deployment()
    for node in tree.body:
        if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != "preload_app":
            continue
        if not isinstance(node.value, ast.Constant) or node.value.value:
            how = "loads" if isinstance(node.value, ast.Constant) else "may load"
            reason = f"gunicorn {how} the code before it forks (preload_app)"
            return Deployment(Setting(reason, Place(shown, None, node.lineno, 1)))
    return Deployment()


def read_command(text: str, shown: str) -> Deployment:
    """Return the settings of a gunicorn command."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\bgunicorn\b.*--preload\b", line):
            reason = "gunicorn loads the code before it forks (--preload)"
            return Deployment(Setting(reason, Place(shown, None, number, 1)))
    return Deployment()
