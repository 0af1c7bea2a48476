"""Keep what the answers ask for: the one place where a file depends on an answer.

Offline, repeatable, and short: whoever runs the template runs this.
"""

from pathlib import Path

# A choice can only be one of the words in cookiecutter.json: nothing that was typed comes here.
SERVER = "{{ cookiecutter.server }}"

WANTED = {
    "gunicorn.conf.py": SERVER != "uwsgi",
    "tests/test_gunicorn_conf.py": SERVER != "uwsgi",
    "uwsgi.ini": SERVER != "gunicorn",
    "tests/test_uwsgi_ini.py": SERVER != "gunicorn",
}

for path, wanted in WANTED.items():
    if not wanted:
        Path(path).unlink(missing_ok=True)

# A template that came as a zip file has lost these bits.
for script in Path("bin").iterdir():
    script.chmod(0o755)
