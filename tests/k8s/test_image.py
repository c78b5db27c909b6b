"""The Dockerfile is not built here (no container engine); what it names must exist."""

import re
import tomllib

import manifests
import pytest

HOUSE = manifests.FOLDER.parent
TEXT = (manifests.FOLDER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
INSTRUCTIONS = [tuple(x.split(None, 1)) for x in TEXT.splitlines() if x and x[0] not in "# "]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_it_copies_what_is_there() -> None:
    sources = [s for line in arguments("COPY") for s in line.split()[:-1]]
    assert [s for s in sources if not (HOUSE / s).exists()] == []
    kept = (manifests.FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert {f"!{s}" for s in sources} <= set(kept)


def test_it_copies_every_package_that_pods_import() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))
    packages = {p.rstrip("*") for p in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = {line.split()[0] for line in arguments("COPY")}
    assert packages - copied == {"benchmarks"}


def test_python_is_the_locks() -> None:
    [base] = arguments("FROM")
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))
    assert base == f"python:{project['tool']['mypy']['python_version']}-slim"


def test_tag_and_paths_are_the_manifests(documents: list[dict[str, object]]) -> None:
    version = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    ray = [p for p in manifests.pods(documents) if p.is_ray]
    assert {p.spec["containers"][0]["image"] for p in ray} == {f"tessera:{version}"}
    assert f"tessera:{version}" in (manifests.FOLDER / "Dockerfile").read_text("utf-8")
    env = {e["name"]: e.get("value") for e in ray[0].spec["containers"][0]["env"]}
    assert f"--out {env['TESSERA_MODELS']} " in TEXT
    [user] = arguments("USER")
    context = ray[0].spec["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


@pytest.mark.parametrize("module", ["feature_store", "export", "serving"])
def test_commands_it_runs_exist(module: str) -> None:
    used = re.findall(r"python -m (\w+)", TEXT)
    assert set(used) <= {"compileall", "export"}
    assert (HOUSE / module / "__init__.py").is_file()
