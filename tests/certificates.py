"""Certificates for tests, made by the `openssl` command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

LEAF = ("-addext", "basicConstraints=CA:FALSE")


def make_certificates(folder: Path) -> Path:
    """Fills a folder: `authority`, `server` for `clips.example`, `client`, `broken.pem`, a key.

    Each has a `.pem` and a `.key`; `locked.key` is the client's with a passphrase.
    """
    try:
        _made(folder, "authority")
        make_server_certificate(folder, "server")
        _made(folder, "client", *_by(folder / "authority"), *LEAF)
        locked = ("-aes128", "-passout", "pass:x", "-out", "locked.key")
        _openssl(folder, "ec", "-in", "client.key", *locked)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl makes no certificates here: {error}")
    (folder / "broken.pem").write_text("no certificate")
    return folder


def make_server_certificate(
    folder: Path, file: str, curve: str = "prime256v1", name: str = "clips.example"
) -> None:
    """Makes another certificate for a name by the folder's authority, and its key."""
    names = ("-addext", f"subjectAltName=DNS:{name}")
    _made(folder, file, *_by(folder / "authority"), *names, *LEAF, curve=curve)


def _by(authority: Path) -> tuple[str, ...]:
    return ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key")


def _made(folder: Path, name: str, *arguments: str, curve: str = "prime256v1") -> None:
    kind = ("-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes")
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "30")
    _openssl(folder, "req", "-x509", *kind, *files, "-subj", f"/CN={name}", *arguments)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
