"""Writes what the manifests take from the typed configuration: `python k8s/generate.py`.

In: serving/config.py, which `python -m serving up` deploys too. Out, an overlay each: the patch
`overlays/NAME/rayservice.generated.yaml` and, where kubectl is there, `rendered/NAME.yaml`.
`--check` writes nothing and fails when a committed file is not what would be written.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import manifests
import yaml

from serving.config import PREFIX, Profile, Settings, ray_environment, serve_config, topology

# Sizes come from a profile. Every cluster drains like production, whatever its size.
OVERLAY_PROFILES: dict[str, Profile] = {"dev": "development"}
STORE_SECRET = {"name": "tessera-store", "key": "password"}
KEYS_FILE = "/etc/tessera/keys/keys.jsonl"
MODELS = "/opt/tessera/models"
HEADER = "# Written by `python k8s/generate.py` from serving/config.py. Do not edit.\n"


class _Block(str):
    """A text that YAML writes as a block, line for line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    _Block, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def serve_document(overlay: str) -> dict[str, Any]:
    """The Serve configuration of an overlay: its profile, listening on every interface."""
    return serve_config(topology(OVERLAY_PROFILES[overlay], host="0.0.0.0", checks=True))


def environment() -> list[dict[str, Any]]:
    """Variables of head and workers alike, in the order in which they refer to each other."""
    settings = {
        "models": MODELS,
        "api_keys_file": KEYS_FILE,
        "redis_url": "redis://:$(STORE_PASSWORD)@tessera-store:6379",
    }
    unknown = settings.keys() - Settings.model_fields.keys()
    if unknown:
        raise manifests.ManifestError(f"serving/config.py has no setting {sorted(unknown)}")
    password = {"name": "STORE_PASSWORD", "valueFrom": {"secretKeyRef": STORE_SECRET}}
    return [
        *({"name": n, "value": v} for n, v in sorted(ray_environment("production").items())),
        password,
        *({"name": PREFIX + n.upper(), "value": v} for n, v in settings.items()),
    ]


def patch(overlay: str) -> str:
    """The JSON 6902 patch of an overlay's RayService, as YAML."""
    cluster = "/spec/rayClusterConfig"
    container = "template/spec/containers/0/env"
    operations: list[dict[str, Any]] = [
        {"path": "/spec/serveConfigV2", "value": _Block(_dump(serve_document(overlay)))},
        {"path": f"{cluster}/rayVersion", "value": version("ray")},
        {"path": f"{cluster}/headGroupSpec/{container}", "value": environment()},
        {"path": f"{cluster}/workerGroupSpecs/0/{container}", "value": environment()},
    ]
    return HEADER + _dump([{"op": "add", **operation} for operation in operations])


def update(path: Path, text: str, check: bool) -> str:
    """Write a file unless it says the same already (or only `check`): fresh, written or stale."""
    if not stale(path, text):
        return "fresh"
    if check:
        return "stale"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return "written"


def stale(path: Path, text: str) -> bool:
    """Whether a committed file says something else; layout differs between kubectl's versions."""
    if not path.is_file():
        return True
    return list(yaml.safe_load_all(path.read_text("utf-8"))) != list(yaml.safe_load_all(text))


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 when --check found a stale file or nothing could be rendered."""
    parser = argparse.ArgumentParser(prog="python k8s/generate.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when stale")
    check = parser.parse_args(arguments).check
    found: list[str] = []
    try:
        for overlay in OVERLAY_PROFILES:
            folder = manifests.OVERLAYS / overlay
            found.append(_report(folder / "rayservice.generated.yaml", patch(overlay), check))
            if manifests.can_render():
                text = HEADER + manifests.render(folder)
                found.append(_report(manifests.RENDERED / f"{overlay}.yaml", text, check))
    except manifests.ManifestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not manifests.can_render():
        print("renderings: neither written nor compared, for there is no kubectl here")
    if "stale" in found:
        print("error: run `python k8s/generate.py` and commit what it writes", file=sys.stderr)
    return 1 if "stale" in found else 0


def _report(path: Path, text: str, check: bool) -> str:
    state = update(path, text, check)
    print(f"{path.relative_to(manifests.FOLDER.parent)}: {state}")
    return state


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100)


if __name__ == "__main__":
    sys.exit(main())
