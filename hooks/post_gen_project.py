"""Delete files that the answers exclude, and print the next commands.

WANTED is the only place where a file depends on an answer. The hook needs no network and may run twice.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

# Choices come from the lists in cookiecutter.json: no free text reaches this code.
DATABASE = "{{ cookiecutter.database }}"
SERVER = "{{ cookiecutter.server }}"
CONTAINER, KUBERNETES, SYSTEMD, TRACING, ERROR_REPORTING, NOTEBOOKS, UNDER_CRUFT = (
    answer == "True"
    for answer in (
        "{{ cookiecutter.container }}",
        "{{ cookiecutter.kubernetes }}",
        "{{ cookiecutter.systemd }}",
        "{{ cookiecutter.tracing }}",
        "{{ cookiecutter.error_reporting }}",
        "{{ cookiecutter.notebooks }}",
        "{{ cookiecutter._commit is defined }}",
    )
)
CI = "{{ cookiecutter.ci }}"

WANTED = {
    "gunicorn.conf.py": SERVER != "uwsgi",
    "gunicorn.pth": SERVER != "uwsgi",
    "tests/foundation/serving/test_gunicorn_conf.py": SERVER != "uwsgi",
    "src/{{cookiecutter.package_name}}/foundation/serving/gunicorn.py": SERVER != "uwsgi",
    "tests/foundation/serving/test_gthread_patient.py": SERVER != "uwsgi",
    "src/{{cookiecutter.package_name}}/foundation/serving/gthread_patient.py": SERVER != "uwsgi",
    "uwsgi.ini": SERVER != "gunicorn",
    "src/{{cookiecutter.package_name}}/foundation/serving/uwsgi.py": SERVER != "gunicorn",
    "tests/foundation/serving/test_uwsgi_ini.py": SERVER != "gunicorn",
    "Dockerfile": CONTAINER or KUBERNETES,
    ".dockerignore": CONTAINER or KUBERNETES,
    "tests/foundation/proofs/test_healthcheck.py": CONTAINER or KUBERNETES,
    "compose.yaml": CONTAINER,
    "deploy/kubernetes": KUBERNETES,
    "deploy/kubernetes/base/migrate.yaml": KUBERNETES and DATABASE != "sqlite",
    "deploy/kubernetes/base/autoscaling.yaml": KUBERNETES and DATABASE != "sqlite",
    "deploy/kubernetes/base/disruption.yaml": KUBERNETES and DATABASE != "sqlite",
    "deploy/kubernetes/base/volume.yaml": KUBERNETES and DATABASE == "sqlite",
    "deploy/systemd": SYSTEMD,
    "deploy/nginx/gunicorn.conf": SYSTEMD and SERVER != "uwsgi",
    "deploy/nginx/uwsgi.conf": SYSTEMD and SERVER != "gunicorn",
    "tests/foundation/observability/test_tracing.py": TRACING,
    "tests/foundation/proofs/test_tracing.py": TRACING,
    "tests/foundation/proofs/test_error_reporting.py": ERROR_REPORTING,
    "tests/foundation/proofs/collector.py": TRACING or ERROR_REPORTING,
    "notebooks": NOTEBOOKS,
    "requirements/notebook.txt": NOTEBOOKS,
    "docs/notebooks.md": NOTEBOOKS,
    "tools/adopt": NOTEBOOKS,
    "tests/tools/adopt": NOTEBOOKS,
    "src/{{cookiecutter.package_name}}/foundation/notebook.py": NOTEBOOKS,
    "tests/foundation/test_notebook.py": NOTEBOOKS,
    "tests/foundation/test_notebook_postgresql.py": NOTEBOOKS,
    "tests/foundation/proofs/test_notebooks.py": NOTEBOOKS,
    ".github/workflows/ci.yml": CI == "github",
    ".github/workflows/image.yml": CI == "github" and (CONTAINER or KUBERNETES),
    ".gitlab-ci.yml": CI == "gitlab",
    "renovate.json": CI != "none",
}

for name, wanted in WANTED.items():
    path = Path(name)
    if not wanted:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        # Remove folders that this leaves empty.
        for folder in path.parents[:-1]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

# A template unpacked from a zip file has lost the executable bits.
for script in Path("bin").iterdir():
    script.chmod(0o755)

# cruft, which defines _commit, generates several copies to compare them: print nothing then.
if not UNDER_CRUFT:
    project, started_in = Path.cwd(), Path(os.environ.get("PWD", "/"))
    shown = project.name if project.parent == started_in.resolve() else str(project)
    lines = f"\nNext:\n\n  cd {shlex.quote(shown)}\n  make serve    # http://127.0.0.1:8000\n"
    # The terminal's encoding may lack characters of the path.
    sys.stdout.buffer.write(os.fsencode(lines + "\n"))
