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
    _common(onboard)
    onboard.add_argument("--examples", type=Path, required=True, help="JSON lines (docs/checks.md)")
    onboard.add_argument(
        "--without-decisions", action="store_true", help="leave out what people have decided"
    )
    teach = commands.add_parser(
        "teach",
        help="teach a policy's router what the language model says",
        description="Asks the language model about thousands of ads and teaches a small network to "
        "say the same: what it is sure of is then decided without the model. No labels are needed; "
        "figures are of ads that it has not learned from.",
    )
    _common(teach)
    teach.add_argument("--ads", type=Path, required=True, help="JSON lines (docs/checks.md)")


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("policy", help="its id: the file is <id>.yaml, made if there is none")
    command.add_argument("--url", default=URL, help=f"the running service ({URL})")
    command.add_argument("--key-file", type=Path, help="a file with an API key of scope admin")
    command.add_argument("--policies", type=Path, help="folder of the policies (TESSERA_POLICIES)")


def run(arguments: argparse.Namespace) -> int:
    """Onboard or teach. Raises ConfigurationError, MainJobError."""
    import httpx
    import orjson

    from serving.checks.onboarding import examples, job, teach
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
    teaching = arguments.checks == "teach"
    found = [] if teaching else examples.read(arguments.examples)
    with httpx.Client(
        base_url=arguments.url, headers=_key(arguments.key_file), timeout=TIMEOUT_S, trust_env=False
    ) as client:
        service = Service(client)
        if teaching:
            taught = teach.teach(service, arguments.policy, arguments.ads, folder)
            said, summary = teach.lines(*taught), teach.summary(*taught)
        else:
            if not arguments.without_decisions:
                found += examples.decided(service.decisions())
            onboarded = job.onboard(service, arguments.policy, found, folder)
            said, summary = job.lines(*onboarded), job.summary(*onboarded)
    print("\n".join(said))
    print(orjson.dumps(summary).decode())
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
