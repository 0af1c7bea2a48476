"""Keep what the answers ask for: the one place where a file depends on an answer.

Offline, repeatable, and short: whoever runs the template runs this.
"""

import json
import shutil
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
SERVER = ANSWERS["server"]

WANTED = {
    "gunicorn.conf.py": SERVER != "uwsgi",
    "tests/test_gunicorn_conf.py": SERVER != "uwsgi",
    "uwsgi.ini": SERVER != "gunicorn",
    "tests/test_uwsgi_ini.py": SERVER != "gunicorn",
}

for path, wanted in WANTED.items():
    target = Path(path)
    if wanted:
        continue
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)

# A template that came as a zip file has lost these bits.
for script in Path("bin").iterdir():
    script.chmod(0o755)
