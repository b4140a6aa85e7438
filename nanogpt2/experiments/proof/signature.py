"""Signatures of checkpoints and export folders, by model-signing (https://sigstore.dev), offline.

A private key on an elliptic curve signs the hashes of all files; the public key proves them.
"""

import tempfile
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.experiments.proof.record import DIFFERS, FITS, Finding

NAME = "model.sig"  # in a folder
CURVES = ("secp256r1", "secp384r1", "secp521r1")


def signature_path(path: str | Path) -> Path:
    """Return where the signature of a file or folder lies: beside the file, in the folder."""
    path = Path(path)
    return path / NAME if path.is_dir() else path.with_name(f"{path.name}.sig")


def sign(path: str | Path, key: str | Path) -> Path:
    """Write the signature of `path` by the private key in the PEM file `key`; return its path.

    Raises DataError where the key cannot be used, ExtraError without the library.
    """
    signing = import_extra("model_signing.signing", extra="sign")
    hashing = import_extra("model_signing.hashing", extra="sign")
    check_key(key, private=True)
    signature = signature_path(path)
    left_out = hashing.Config().set_ignored_paths(paths=[signature.name])
    signer = signing.Config().use_elliptic_key_signer(private_key=Path(key))
    with tempfile.TemporaryDirectory() as aside:
        made = Path(aside, "signature")
        signer.set_hashing_config(left_out).sign(Path(path), made)
        files.write_bytes(signature, made.read_bytes())
    return signature


def verify_signature(path: str | Path, key: str | Path) -> Finding:
    """Return whether the signature of `path` is by the owner of the public key in `key`, and of it.

    Raises DataError where there is no signature or no such key.
    """
    verifying = import_extra("model_signing.verifying", extra="sign")
    invalid = import_extra("cryptography.exceptions", extra="sign").InvalidSignature
    check_key(key, private=False)
    signature = signature_path(path)
    files.read_bytes(signature)
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(key))
    try:
        verifier.verify(Path(path), signature)
    # what the library raises for a signature in which bytes were changed: no class of its own
    except (ValueError, TypeError, LookupError, AttributeError, invalid) as error:
        what = f"is not signed so by the owner of {key}{_explain(error)}"
        return Finding(DIFFERS, str(path), what)
    return Finding(FITS, str(path), f"is signed by the owner of {key}")


def _explain(error: Exception) -> str:
    text = str(error)
    if text.startswith("Key mismatch"):
        return ": another key signed it"
    if text.startswith("Signature mismatch"):
        return ": its files are not those that were signed"
    return ": its signature is damaged"


def check_key(key: str | Path, *, private: bool) -> None:
    """Raise DataError where the file `key` holds no such key on a curve that can sign."""
    serialization: Any = import_extra("cryptography.hazmat.primitives.serialization", extra="sign")
    kind = "private" if private else "public"
    content = files.read_bytes(key)
    try:
        if private:
            found = serialization.load_pem_private_key(content, password=None)
        else:
            found = serialization.load_pem_public_key(content)
    except (ValueError, TypeError) as error:
        raise DataError(f"{key}: no {kind} key in PEM form, without a password") from error
    curve = getattr(getattr(found, "curve", None), "name", "no curve")
    if curve not in CURVES:
        raise DataError(f"{key}: found a key on {curve}; allowed: {', '.join(CURVES)}")
