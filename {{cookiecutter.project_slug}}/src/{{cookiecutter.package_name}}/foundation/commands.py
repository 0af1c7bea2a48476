"""Commands of the project: `make cli ARGS="name arguments"`, `flask --app <package>.wsgi name arguments`."""

from __future__ import annotations

import importlib
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup, ScriptInfo

from .database.base import import_modules


class Commands(AppGroup):
    """All commands from modules named `commands`, run in an application context.

    The modules are imported only when a command is looked up, because servers do not need them.
    """

    def __init__(self, package: str) -> None:
        super().__init__(package)
        self.package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._import_once()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        self._import_once()
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command for `app.test_cli_runner()`; the program `flask` pushes its own context."""
        if not current_app:
            ctx.with_resource(ctx.ensure_object(ScriptInfo).load_app().app_context())
        return super().invoke(ctx)

    def _import_once(self) -> None:
        package, self.package = self.package, ""
        if package:
            for module in import_modules(importlib.import_module(package), "commands"):
                found = [each for each in vars(module).values() if isinstance(each, click.Command)]
                groups = [each for each in found if isinstance(each, click.Group)]
                within = [each for group in groups for each in group.commands.values()]
                for command in found:
                    if command not in within:
                        self._add(command, module.__name__)

    def _add(self, command: click.Command, module: str) -> None:
        if self.commands.get(command.name or "", command) is not command:
            raise RuntimeError(f"{module}: another command is named {command.name}, rename one")
        self.add_command(command)
