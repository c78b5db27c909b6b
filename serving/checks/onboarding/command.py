"""`python -m serving checks ...`: its command line.

In: arguments. Out: an exit code; the report goes to standard output, with one JSON line last.
"""

import argparse
import os
import re
from pathlib import Path

from serving.config import Settings
from serving.errors import ConfigurationError

URL = "http://127.0.0.1:8000"


def add_arguments(checks: argparse.ArgumentParser, parser: type[argparse.ArgumentParser]) -> None:
    """The sub-commands of `checks`."""
    commands = checks.add_subparsers(dest="checks", required=True, parser_class=parser)
    onboard = commands.add_parser(
        "onboard",
        help="fit a policy to labelled ads",
        description="Fits calibration, thresholds and router of a policy to 8-64 labelled ads "
        "(more are better) and to what people have decided; the language model is not touched.",
    )
    onboard.add_argument("policy", help="its id: the file is <id>.yaml, made if there is none")
    onboard.add_argument("--examples", type=Path, required=True, help="JSON lines (docs/checks.md)")
    onboard.add_argument("--url", default=URL, help=f"the running service ({URL})")
    onboard.add_argument("--key-file", type=Path, help="a file with an API key of scope admin")
    onboard.add_argument("--policies", type=Path, help="folder of the policies (TESSERA_POLICIES)")
    onboard.add_argument(
        "--without-decisions", action="store_true", help="leave out what people have decided"
    )


def run(arguments: argparse.Namespace) -> int:
    """Onboard. Raises ConfigurationError, MainJobError."""
    import httpx
    import orjson

    from serving.checks.onboarding import examples, job
    from serving.checks.onboarding.service import TIMEOUT_S, Service
    from serving.checks.policy_file import NAME

    if not NAME.fullmatch(arguments.policy):
        raise ConfigurationError(f"POLICY: expected {NAME.pattern}, found {arguments.policy!r}")
    folder = arguments.policies or Settings.load().policies
    if folder is None:
        raise ConfigurationError(
            "--policies: expected the folder that the service reads; it reads the package's own "
            "unless TESSERA_POLICIES names one"
        )
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigurationError(f"--policies {folder}: expected a folder that can be written to")
    found = examples.read(arguments.examples)
    with httpx.Client(
        base_url=arguments.url, headers=_key(arguments.key_file), timeout=TIMEOUT_S, trust_env=False
    ) as client:
        service = Service(client)
        if not arguments.without_decisions:
            found += examples.decided(service.decisions())
        file, reports = job.onboard(service, arguments.policy, found, folder)
    print("\n".join(job.lines(file, reports)))
    print(orjson.dumps(job.summary(file, reports)).decode())
    return 0


def _key(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        key = file.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"--key-file {file}: {error.strerror}") from error
    if not re.fullmatch(rb"[!-~]+", key):
        raise ConfigurationError(f"--key-file {file}: expected one line, the key alone")
    return {"authorization": f"Bearer {key.decode()}"}
