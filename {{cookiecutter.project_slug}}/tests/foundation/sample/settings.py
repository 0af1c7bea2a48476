"""The settings of the sample service: those of the foundation."""

from __future__ import annotations

from {{cookiecutter.package_name}}.foundation.configuration import ServiceSettings


class Settings(ServiceSettings):
    """The settings of the foundation, and no others."""
