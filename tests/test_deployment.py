"""What a project is deployed with does what it says, and the tools that check such files agree."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import SECRET, Bake, run
from .image import Built, instructions
from .serving import ask, serving

BIN = Path(sys.executable).parent
EACH_SERVER = pytest.mark.parametrize("server", ["gunicorn", "uwsgi"])
EACH_DATABASE = pytest.mark.parametrize("database", ["postgresql", "sqlite"])


@EACH_SERVER
def test_an_image_serves_and_its_health_check_says_so(server: str, image: Built, tmp_path: Path) -> None:
    made = image(server)
    settings = {"DATABASE_URL": f"sqlite:///{made.root}/data/notes.db", "SECRET_KEY": SECRET}
    settings = made.environment | settings | {"WEB_CONCURRENCY": "1"}
    del settings["WEB_BIND"]
    run("alembic", "upgrade", "head", cwd=made.directory, env=settings)
    before = set(made.root.rglob("*"))

    with serving(*made.command, cwd=made.directory, log=tmp_path / "log", env=settings) as running:
        running.wait_until_it_answers(60)
        port = running.url.rpartition(":")[2]
        check = [word.replace("8000", port) for word in made.check]
        run(*check, cwd=made.directory, env=made.environment)
        assert ask(f"{running.url}/notes")[0] == ask(f"{running.url}/readyz")[0] == 200
        assert running.end(signal.SIGTERM) == 0

    run(*check, cwd=made.directory, env=made.environment, status=1)
    # Nothing was written beside the data: the root file system may be read-only.
    assert {path.relative_to(made.root).parts[0] for path in set(made.root.rglob("*")) - before} <= {"data"}


@EACH_SERVER
def test_an_image_holds_what_runs_and_nothing_else(server: str, image: Built) -> None:
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
def test_the_dockerfile_is_a_good_one(database: str, server: str, bake: Bake) -> None:
    project = bake(database=database, server=server)

    run(BIN / "hadolint", "--failure-threshold", "style", "Dockerfile", cwd=project)
    # Each stage begins with the same image, whose tag is not the one that moves most.
    steps = instructions((project / "Dockerfile").read_text())
    assert steps[0] == ("ARG", "PYTHON=python:3.13-slim-trixie")
    assert [rest.split()[0] for name, rest in steps if name == "FROM"] == ["${PYTHON}"] * 2


@EACH_SERVER
def test_an_image_takes_nothing_but_what_it_needs(server: str, bake: Bake) -> None:
    project = bake(server=server)
    lines = (project / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(\S+)", (project / "Dockerfile").read_text(), re.MULTILINE)

    assert [line for line in lines if not line.startswith(("#", "!"))] == ["*", "**/__pycache__"]
    assert allowed == set(copied)
    assert all((project / path).exists() for path in allowed)


@EACH_DATABASE
@EACH_SERVER
def test_compose_takes_the_file(database: str, server: str, bake: Bake) -> None:
    project = bake(database=database, server=server)

    check_schema("compose-spec", project / "compose.yaml")


def check_schema(name: str, file: Path) -> None:
    """Check a file against a schema that the checker brings along."""
    run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{name}", file, cwd=file.parent)


@EACH_DATABASE
def test_compose_starts_the_service_after_its_migrations_and_gives_it_no_right(
    database: str, bake: Bake
) -> None:
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
def test_systemd_takes_the_units_and_finds_little_to_attack(
    database: str, server: str, bake: Bake, tmp_path: Path
) -> None:
    project = bake(database=database, server=server, systemd=True, project_slug="1" * 40)
    for unit in (project / "deploy" / "systemd").iterdir():
        # What they start is looked for: it is not installed here.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    units = sorted(path.name for path in tmp_path.iterdir())

    assert units == ["1" * 40 + end for end in ("-migrate.service", ".service", ".socket")]
    done = run("systemd-analyze", "verify", *(f"./{name}" for name in units), cwd=tmp_path)
    assert done.stderr == ""
    for name in units[:2]:
        security = ("security", "--offline=true", "--threshold=20", f"./{name}")
        run("systemd-analyze", *security, cwd=tmp_path)
    # The data belong to one user, whoever is there first.
    assert values(tmp_path / units[0], "User") == values(tmp_path / units[1], "User") == ["svc-" + "1" * 26]
    assert values(tmp_path / units[1], "RestartPreventExitStatus") == ["78 22"]


def values(unit: Path, name: str) -> list[str]:
    """Return what a unit says of something."""
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
def test_kubernetes_takes_the_manifests(
    environment: str, database: str, server: str, bake: Bake, tmp_path: Path
) -> None:
    project = bake(kubernetes=True, database=database, server=server)
    file = rendered(project, environment, tmp_path)

    run(BIN / "kubernetes-validate", "--strict", file, cwd=tmp_path)

    kinds = [document["kind"] for document in yaml.safe_load_all(file.read_text())]
    scaled = {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Job"}
    assert scaled & set(kinds) == (scaled if database == "postgresql" else set())
    assert "Secret" not in kinds


@EACH_DATABASE
def test_pods_may_do_nothing_but_serve(database: str, bake: Bake, tmp_path: Path) -> None:
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
    file = rendered(bake(kubernetes=True), "production", tmp_path)
    (job,) = (document for document in yaml.safe_load_all(file.read_text()) if document["kind"] == "Job")

    rule = job["spec"]["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "migrate", "operator": "In", "values": [78]}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_pods_hear_and_reach_only_what_is_named(bake: Bake, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("server", ["both", "gunicorn", "uwsgi"])
@pytest.mark.parametrize("container", [True, False])
def test_the_ci_file_is_one_and_asks_for_little(container: bool, server: str, bake: Bake) -> None:
    gitlab = bake(ci="gitlab", container=container, server=server)
    check_schema("gitlab-ci", gitlab / ".gitlab-ci.yml")
    assert ("build" in yaml.safe_load((gitlab / ".gitlab-ci.yml").read_text())) is container


def test_the_workflows_are_safe(bake: Bake) -> None:
    project = bake()
    for workflow in (project / ".github" / "workflows").iterdir():
        check_schema("github-workflows", workflow)
    run(BIN / "zizmor", "--offline", ".github", cwd=project)
