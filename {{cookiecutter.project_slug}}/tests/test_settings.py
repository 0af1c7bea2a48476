"""The settings of the service. This file is yours."""

from __future__ import annotations

import re

from {{cookiecutter.package_name}}.foundation.configuration import ServiceSettings
from {{cookiecutter.package_name}}.settings import Settings

from .foundation.databases import PROJECT


def test_the_example_names_every_setting_of_the_service() -> None:
    """The file .env.example lists exactly the settings that the service adds to the foundation."""
    text = (PROJECT / ".env.example").read_text()
    foundation, all_settings = (
        {name.upper() for name in kind.model_fields} for kind in (ServiceSettings, Settings)
    )

    named = set(re.findall(r"^#?([A-Z0-9_]+)=", text, re.MULTILINE))

    assert named - foundation == all_settings - foundation
