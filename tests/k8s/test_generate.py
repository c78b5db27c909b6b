"""The RayService follows serving/config.py: what is committed is what would be generated."""

import subprocess
import sys
from pathlib import Path

import generate
import manifests
import pytest
import yaml

from serving.config import Settings, ray_environment, topology

PATCH = manifests.OVERLAYS / "dev" / "rayservice.generated.yaml"


def test_committed_files_are_fresh() -> None:
    assert generate.main(["--check"]) == 0


def test_the_patch_carries_every_application_and_variable() -> None:
    operations = {o["path"]: o["value"] for o in yaml.safe_load(PATCH.read_text("utf-8"))}
    config = yaml.safe_load(operations["/spec/serveConfigV2"])
    expected = [(a.name, a.route_prefix) for a in topology("development", checks=True).applications]
    assert [(a["name"], a["route_prefix"]) for a in config["applications"]] == expected
    head, worker = (v for path, v in operations.items() if path.endswith("/env"))
    assert head == worker
    plain = {e["name"]: e["value"] for e in head if "value" in e}
    assert ray_environment("production").items() <= plain.items()
    ours = {n.removeprefix("TESSERA_").lower() for n in plain if n.startswith("TESSERA_")}
    assert ours <= Settings.model_fields.keys()


def test_a_stale_file_is_found_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    assert generate.update(path, "a: 1\n", check=True) == "stale"
    assert not path.exists()
    assert generate.update(path, "a: 1\n", check=False) == "written"
    assert generate.update(path, "# other layout\n{a: 1}\n", check=True) == "fresh"
    assert generate.update(path, "a: 2\n", check=True) == "stale"


def test_check_fails_when_the_configuration_has_moved_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "KEYS_FILE", "/elsewhere")
    before = PATCH.read_bytes()
    assert generate.main(["--check"]) == 1
    assert "rayservice.generated.yaml: stale" in capsys.readouterr().out
    assert PATCH.read_bytes() == before


@pytest.mark.parametrize("script", ["generate.py", "check.py"])
def test_help(script: str) -> None:
    command = [sys.executable, str(manifests.FOLDER / script), "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    assert "--c" in ran.stdout
