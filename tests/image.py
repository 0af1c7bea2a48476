"""Build a Dockerfile in a folder of this machine, without a container engine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .processes import run


@dataclass
class Image:
    """The last stage: its folder instead of /, its environment, its command and its health check."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: Path = Path()
    user: str = "root"
    command: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)


Built = Callable[[str], Image]


def instructions(text: str) -> list[tuple[str, str]]:
    """Return each instruction of a Dockerfile with its arguments."""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest.strip()) for name, rest in re.findall(r"^([A-Z]+)\s+(.*)$", lines, re.MULTILINE)]


def build(dockerfile: Path, folder: Path) -> Image:
    """Execute a Dockerfile; a folder replaces the image's root.

    A stage is built where the last one will be, since an environment knows its path, and is put
    aside when it is done. The ownership of files is ignored.
    """
    context, root = dockerfile.parent, folder / "root"
    python = folder / "python"
    python.mkdir(parents=True)
    # The base image has `python`, and nothing of the project.
    for name in ("python", "python3"):
        (python / name).symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}")
    image, stage = Image(root), ""

    def inside(words: str) -> str:
        return re.sub(r"(?<![\w./])/(app|data)\b", rf"{root}/\1", words)

    for name, rest in instructions(dockerfile.read_text()):
        if name == "FROM":
            if stage:
                root.rename(folder / stage)
            root.mkdir()
            image, stage = Image(root), rest.partition(" AS ")[2]
            image.environment = {"PATH": f"{python}:/usr/bin:/bin"}
        elif name == "WORKDIR":
            image.directory = Path(inside(rest))
            image.directory.mkdir(exist_ok=True)
        elif name == "ENV":
            for pair in shlex.split(rest):
                key, _, value = pair.partition("=")
                image.environment[key] = inside(value).replace("$PATH", image.environment["PATH"])
        elif name == "COPY":
            options = [word for word in rest.split() if word.startswith("--")]
            source, target = (word for word in rest.split() if not word.startswith("--"))
            of_stage = [word.removeprefix("--from=") for word in options if word.startswith("--from=")]
            origin = folder / of_stage[0] / source[1:] if of_stage else context / source
            copy(origin, Path(inside(target)), into=target.endswith("/"))
        elif name == "RUN":
            run("/bin/sh", "-c", inside(rest), cwd=image.directory, timeout=300, env=image.environment)
        elif name == "HEALTHCHECK":
            image.check = json.loads(rest.partition(" CMD ")[2])
        elif name == "CMD":
            image.command = json.loads(rest)
        elif name == "USER":
            image.user = rest
        else:
            assert name in {"ARG", "EXPOSE"}, f"{name} is not known here"
    return image


def copy(origin: Path, target: Path, *, into: bool) -> None:
    """Copy a file, or the contents of a folder."""
    if origin.is_dir():
        shutil.copytree(origin, target, symlinks=True, dirs_exist_ok=True)
    else:
        path = target / origin.name if into else target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin, path)
