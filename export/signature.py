"""Signatures of bundles: Ed25519 (RFC 8032) over everything the manifest says.

In: keys as 32 raw bytes in base64, in files. Out: a signed manifest, or an error. A manifest names
the hash of every file, its name and its version, so one signature covers the whole bundle and
cannot be moved to another version.
"""

import base64
import binascii
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from export.errors import MissingExtraError, RepositoryError, SignatureError
from export.manifest import Manifest, Signature, signed_bytes


def make_keys(private: Path, public: Path) -> None:
    """Write a new pair of keys; the private one for its owner's eyes only.

    Raises:
        RepositoryError: one of the files is there already, or cannot be written; neither is made.
    """
    key = _library().Ed25519PrivateKey.generate()
    made: list[Path] = []
    for file, mode in ((private, 0o600), (public, 0o644)):
        try:
            file.touch(mode=mode, exist_ok=False)  # a key that is there may be the only one
        except OSError as error:
            for other in made:
                other.unlink()
            raise RepositoryError(f"{file} cannot be made anew: {error.strerror}") from error
        made.append(file)
    private.write_text(base64.b64encode(key.private_bytes_raw()).decode() + "\n")
    public.write_text(base64.b64encode(key.public_key().public_bytes_raw()).decode() + "\n")


def sign(manifest: Manifest, private: Path) -> Manifest:
    """The manifest with a signature. Raises SignatureError for a file that is no key."""
    key = _library().Ed25519PrivateKey.from_private_bytes(_read_key(private))
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    value = base64.b64encode(key.sign(signed_bytes(manifest))).decode()
    return replace(manifest, signature=Signature(public, value))


def verify(manifest: Manifest, public: Path) -> None:
    """Check a manifest against the one key that is trusted.

    Raises:
        SignatureError: no signature, another key's, or one of other content.
    """
    from cryptography.exceptions import InvalidSignature

    label = f"{manifest.name} {manifest.version}"
    raw = _read_key(public)
    if manifest.signature is None:
        raise SignatureError(f"{label} is not signed, and {public} is required to have signed it")
    if manifest.signature.public_key != base64.b64encode(raw).decode():
        raise SignatureError(f"{label} is signed by another key than {public}")
    try:
        value = base64.b64decode(manifest.signature.value, validate=True)
        _library().Ed25519PublicKey.from_public_bytes(raw).verify(value, signed_bytes(manifest))
    except (InvalidSignature, binascii.Error) as error:
        raise SignatureError(f"{label}: the signature does not fit the manifest") from error


def _read_key(file: Path) -> bytes:
    try:
        raw = base64.b64decode(file.read_bytes().strip(), validate=True)
    except (OSError, binascii.Error) as error:
        raise SignatureError(f"{file} holds no key: {error}") from error
    if len(raw) != 32:
        raise SignatureError(f"{file}: a key is 32 bytes in base64, found {len(raw)} bytes")
    return raw


def _library() -> ModuleType:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("cryptography") from error
    return ed25519
