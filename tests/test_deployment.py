"""A project's deployment files work, and their linters accept them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import promql_parser
import pytest
import yaml

from .conftest import SECRET, Bake
from .image import Built, build, instructions
from .processes import run, serve

BIN = Path(sys.executable).parent
EACH_SERVER = pytest.mark.parametrize("server", ["gunicorn", "uwsgi"])
EACH_DATABASE = pytest.mark.parametrize("database", ["postgresql", "sqlite"])


@EACH_SERVER
def test_an_image_serves_and_passes_its_health_check(server: str, image: Built, tmp_path: Path) -> None:
    """An image serves, passes its health check until it stops, and writes only its data."""
    made = image(server)
    settings = {"DATABASE_URL": f"sqlite:///{made.root}/data/notes.db", "SECRET_KEY": SECRET}
    settings = made.environment | settings | {"WEB_CONCURRENCY": "1"}
    del settings["WEB_BIND"]
    run("alembic", "upgrade", "head", cwd=made.directory, env=settings)
    before = set(made.root.rglob("*"))

    with serve(*made.command, cwd=made.directory, log=tmp_path / "log", env=settings) as running:
        running.wait_until_ready(60)
        check = [word.replace("8000", str(running.port)) for word in made.check]
        run(*check, cwd=made.directory, env=made.environment)
        assert running.get("/notes").status == running.get("/readyz").status == 200
        running.signal(signal.SIGTERM)
        assert running.wait() == 0

    run(*check, cwd=made.directory, env=made.environment, status=1)
    # Only data was written: the root file system may be read-only.
    assert {path.relative_to(made.root).parts[0] for path in set(made.root.rglob("*")) - before} <= {"data"}


COMMANDS = {
    "doctor": ("python", "-m", "notes_service.foundation.serving.doctor"),
    "settings": ("python", "-m", "notes_service.foundation.serving.settings"),
    "flask": ("flask", "--app", "notes_service.wsgi", "seed", "2"),
    "alembic": ("alembic", "current"),
}


@pytest.mark.parametrize("server", ["both", "gunicorn", "uwsgi"])
def test_every_document_has_the_same_exit_codes(server: str, bake: Bake) -> None:
    """OPERATIONS lists its servers' exit codes, and in every document supervisors give up only at 78."""
    project = bake(server=server, systemd=True, kubernetes=True)
    readme, operations, failures = (
        (project / name).read_text() for name in ("README.md", "docs/OPERATIONS.md", "docs/failures.md")
    )
    servers = {"both": {3, 22}, "gunicorn": {3}, "uwsgi": {22}}[server]

    table = operations.partition("## Exit codes")[2].partition("\n## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+)\b", table, re.MULTILINE)}
    assert listed - {137, 143} == {0, 1, 78} | servers
    assert re.findall(r"`RestartPreventExitStatus=(.+?)`", readme) == ["78"]
    assert "`RestartPreventExitStatus=78`, no other status" in failures
    unit = (project / "deploy" / "systemd" / f"{project.name}.service").read_text()
    assert re.findall(r"^RestartPreventExitStatus=(.+)$", unit, re.MULTILINE) == ["78"]


@EACH_SERVER
def test_documented_commands_work_in_an_image(server: str, image: Built) -> None:
    """Commands that the documents run in production work in an image, where nothing is installed by make."""
    made = image(server)
    key = "s0me-0ther-r4nd0m-ch4r4cters-of-a-service"
    settings = {"DATABASE_URL": f"sqlite:///{made.root}/data/commands.db", "SECRET_KEY": key}
    env = made.environment | settings
    run("alembic", "upgrade", "head", cwd=made.directory, env=env)

    codes = {"doctor": 1}  # It has findings.
    for name, command in COMMANDS.items():
        done = run(*command, cwd=made.directory, env=env, status=codes.get(name, 0))
        assert "Traceback" not in done.stdout + done.stderr, name


def test_an_image_of_a_private_checkout_can_be_read(bake: Bake, tmp_path: Path) -> None:
    """An image from a checkout that only its owner can read has no file that another user cannot."""
    project = shutil.copytree(bake(database="sqlite", server="gunicorn"), tmp_path / "project")
    for path in [project, *project.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)

    made = build(project / "Dockerfile", tmp_path / "image")

    for path in (made.root / "app").rglob("*"):
        if not path.is_symlink():
            assert path.stat().st_mode & (0o005 if path.is_dir() else 0o004), path


@EACH_SERVER
def test_an_image_contains_only_runtime_files(server: str, image: Built) -> None:
    """An image contains only the files that run, compiled, without pip, and its user is not root."""
    made = image(server)

    assert {path.name for path in (made.root / "app").iterdir()} == {
        ".venv",
        "requirements",
        "pyproject.toml",
        "gunicorn.conf.py" if server == "gunicorn" else "uwsgi.ini",
        "migrations",
        "src",
    }
    assert not list((made.root / "app").rglob("pip/__init__.py"))
    package = made.root / "app" / "src" / "notes_service"
    assert len(list(package.rglob("*.pyc"))) == len(list(package.rglob("*.py")))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", made.user)


@EACH_DATABASE
@EACH_SERVER
def test_the_dockerfile_passes_hadolint(database: str, server: str, bake: Bake) -> None:
    """The Dockerfile passes hadolint, and its stages have the same base image with a precise tag."""
    project = bake(database=database, server=server)

    run(BIN / "hadolint", "--failure-threshold", "style", "Dockerfile", cwd=project)
    # Each stage begins with the same image, whose tag is not `latest` or the like.
    steps = instructions((project / "Dockerfile").read_text())
    assert steps[0] == ("ARG", "PYTHON=python:3.13-slim-trixie")
    assert [rest.split()[0] for name, rest in steps if name == "FROM"] == ["${PYTHON}"] * 2


@EACH_SERVER
def test_the_build_context_contains_only_the_copied_files(server: str, bake: Bake) -> None:
    """The build context of an image contains only the files that the Dockerfile copies."""
    project = bake(server=server)
    lines = (project / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(\S+)", (project / "Dockerfile").read_text(), re.MULTILINE)

    assert [line for line in lines if not line.startswith(("#", "!"))] == ["*", "**/__pycache__"]
    assert allowed == set(copied)
    assert all((project / path).exists() for path in allowed)


@EACH_DATABASE
@EACH_SERVER
def test_the_compose_file_is_valid(database: str, server: str, bake: Bake) -> None:
    """The compose file matches its schema."""
    project = bake(database=database, server=server)

    check_schema("compose-spec", project / "compose.yaml")


def check_schema(name: str, file: Path) -> None:
    """Check a file against one of the checker's own schemas."""
    run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{name}", file, cwd=file.parent)


@EACH_DATABASE
def test_compose_migrates_first_and_grants_no_privilege(database: str, bake: Bake) -> None:
    """Compose starts the service after its migrations, with no privilege and no default secret."""
    services = yaml.safe_load((bake(database=database) / "compose.yaml").read_text())["services"]
    web, migrate = services["web"], services["migrate"]

    assert web["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    if database == "postgresql":
        assert migrate["depends_on"] == {"database": {"condition": "service_healthy"}}
        assert services["database"]["healthcheck"]["test"][1] == "pg_isready"
    assert web["ports"] == ["127.0.0.1:8000:8000"]
    assert not any("ports" in service for name, service in services.items() if name != "web")
    for service in (web, migrate):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    secrets = [value for service in services.values() for value in service["environment"].items()]
    for name, value in secrets:
        if name in {"SECRET_KEY", "POSTGRES_PASSWORD"} or "://service:" in value:
            assert ":?" in value


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@EACH_DATABASE
@EACH_SERVER
def test_the_systemd_units_are_valid_and_hardened(
    database: str, server: str, bake: Bake, tmp_path: Path
) -> None:
    """systemd accepts the units without a warning and rates their exposure as low."""
    project = bake(database=database, server=server, systemd=True, project_slug="1" * 40)
    for unit in (project / "deploy" / "systemd").iterdir():
        # systemd-analyze looks for the programs, which are not installed here.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    units = sorted(path.name for path in tmp_path.iterdir())

    assert units == ["1" * 40 + end for end in ("-migrate.service", ".service", ".socket")]
    done = run("systemd-analyze", "verify", *(f"./{name}" for name in units), cwd=tmp_path)
    assert done.stderr == ""
    for name in units[:2]:
        security = ("security", "--offline=true", "--threshold=20", f"./{name}")
        run("systemd-analyze", *security, cwd=tmp_path)
    # The data belong to one user, whichever unit starts first.
    assert values(tmp_path / units[0], "User") == values(tmp_path / units[1], "User") == ["svc-" + "1" * 26]
    assert values(tmp_path / units[1], "RestartPreventExitStatus") == ["78"]


def values(unit: Path, name: str) -> list[str]:
    """Return the values of a unit's setting."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def rendered(project: Path, environment: str, folder: Path) -> Path:
    """Return the manifests of an environment in one file; without kubectl, those of its base."""
    place = project / "deploy" / "kubernetes"
    if shutil.which("kubectl"):
        text = run("kubectl", "kustomize", place / environment, cwd=project).stdout
    else:
        base = yaml.safe_load((place / "base" / "kustomization.yaml").read_text())
        text = "---\n".join((place / "base" / name).read_text() for name in base["resources"])
    (folder / "manifests.yaml").write_text(text)
    return folder / "manifests.yaml"


@EACH_SERVER
@EACH_DATABASE
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_kubernetes_manifests_are_valid(
    environment: str, database: str, server: str, bake: Bake, tmp_path: Path
) -> None:
    """The manifests are valid, scale only with PostgreSQL, and contain no secret."""
    project = bake(kubernetes=True, database=database, server=server)
    file = rendered(project, environment, tmp_path)

    run(BIN / "kubernetes-validate", "--strict", file, cwd=tmp_path)

    kinds = [document["kind"] for document in yaml.safe_load_all(file.read_text())]
    scaled = {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Job"}
    assert scaled & set(kinds) == (scaled if database == "postgresql" else set())
    assert "Secret" not in kinds


@EACH_DATABASE
def test_pods_may_do_nothing_but_serve(database: str, bake: Bake, tmp_path: Path) -> None:
    """Pods have no privilege beyond serving, resource limits, and the right probes."""
    file = rendered(bake(kubernetes=True, database=database), "production", tmp_path)
    documents = list(yaml.safe_load_all(file.read_text()))
    running = [document for document in documents if document["kind"] in {"Deployment", "Job"}]
    pods = [document["spec"]["template"]["spec"] for document in running]

    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"].keys() == {"memory"}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["envFrom"] == [{"secretRef": {"name": "notes-service"}}]
    (web,) = pods[0]["containers"]
    probes = {name: web[name]["httpGet"]["path"] for name in web if name.endswith("Probe")}
    assert probes == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert {mount["mountPath"] for mount in web["volumeMounts"]} >= {"/tmp", "/dev/shm"}  # noqa: S108


def test_a_migration_with_a_wrong_setting_is_not_tried_again(bake: Bake, tmp_path: Path) -> None:
    """A migration job with an invalid setting, which exits with 78, is not retried."""
    file = rendered(bake(kubernetes=True), "production", tmp_path)
    (job,) = (document for document in yaml.safe_load_all(file.read_text()) if document["kind"] == "Job")

    rule = job["spec"]["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "migrate", "operator": "In", "values": [78]}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_pods_connect_only_on_the_named_ports(bake: Bake, tmp_path: Path) -> None:
    """Network policies deny pods every connection except on the named ports."""
    project = bake(kubernetes=True, tracing=True, error_reporting=True)
    file = rendered(project, "production", tmp_path)
    policies = {
        document["metadata"]["name"].removeprefix("notes-service"): document["spec"]
        for document in yaml.safe_load_all(file.read_text())
        if document["kind"] == "NetworkPolicy"
    }

    assert policies[""]["policyTypes"] == ["Ingress", "Egress"]
    assert not policies[""].keys() & {"ingress", "egress"}
    rules = {name: [*spec.get("ingress", []), *spec.get("egress", [])] for name, spec in policies.items()}
    ports = {
        name: [port["port"] for rule in found for port in rule["ports"]] for name, found in rules.items()
    }
    assert ports == {
        "": [],
        "-web": [8000],
        "-metrics": [9100],
        "-traces": [4318],
        "-reports": [443],
        "-names": [53, 53],
        "-database": [5432],
    }


def test_prometheus_accepts_the_alerts_and_the_dashboard(bake: Bake) -> None:
    """Each expression is PromQL and names the job of the service; each alert and each panel is complete."""
    folder = bake(project_name="Web Shop") / "deploy/prometheus"
    [group] = yaml.safe_load((folder / "alerts.yaml").read_text())["groups"]
    panels = json.loads((folder / "dashboard.json").read_text())["panels"]

    for rule in group["rules"]:
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    for text in [*expressions, *(rule["expr"] for rule in group["rules"])]:
        # Grafana replaces its own variable before it sends an expression.
        promql_parser.parse(text.replace("$__rate_interval", "5m"))
        assert re.findall(r'job="([^"]*)"', text) == ["web-shop"] * text.count("{")
    if promtool := shutil.which("promtool"):
        run(promtool, "check", "rules", folder / "alerts.yaml", cwd=folder)


@pytest.mark.parametrize("server", ["both", "gunicorn", "uwsgi"])
@pytest.mark.parametrize("container", [True, False])
def test_the_gitlab_ci_file_is_valid(container: bool, server: str, bake: Bake) -> None:
    """The GitLab CI file matches its schema, and builds an image only for a container."""
    gitlab = bake(ci="gitlab", container=container, server=server)
    check_schema("gitlab-ci", gitlab / ".gitlab-ci.yml")
    assert ("build" in yaml.safe_load((gitlab / ".gitlab-ci.yml").read_text())) is container


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_the_dependency_bot_compiles_the_requirement_files(ci: str, bake: Bake) -> None:
    """Renovate's configuration is valid, and finds in each requirement file the command that makes it."""
    project = bake(ci=ci)
    check_schema("renovate", project / "renovate.json")

    (pattern,) = json.loads((project / "renovate.json").read_text())["pip-compile"]["managerFilePatterns"]
    names = [path.relative_to(project).as_posix() for path in (project / "requirements").iterdir()]
    assert all(re.search(pattern.strip("/"), name) for name in names)
    for name in names:
        # Renovate takes the command from the last line of the head, and knows these of uv's options.
        command = re.match(r"(?:#.*\n)+?# {4}uv (.*)\n(?!#)", (project / name).read_text())
        assert command, name
        options = {word.partition("=")[0] for word in command[1].split() if word.startswith("-")}
        assert options <= {"--group", "--constraint", "--output-file"}


def test_the_workflows_are_safe(bake: Bake) -> None:
    """The GitHub workflows match their schema and pass zizmor."""
    project = bake()
    for workflow in (project / ".github" / "workflows").iterdir():
        check_schema("github-workflows", workflow)
    run(BIN / "zizmor", "--offline", ".github", cwd=project)
