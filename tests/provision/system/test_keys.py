"""Signing keys: read as gpg reads them, trusted only by fingerprint."""

from __future__ import annotations

import os
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.errors import Refused
from provision.system.keys import InvalidKey, fingerprints, parse, trusted_keyring


def gpg(home: Path, *arguments: str) -> bytes:
    environ = {**os.environ, "GNUPGHOME": str(home)}
    return subprocess.run(
        ["gpg", "--batch", "--quiet", *arguments], check=True, capture_output=True, env=environ
    ).stdout


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, str]:
    """A key made by gpg: binary, armoured, and its fingerprint in gpg's own words."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    gpg(home, "--passphrase", "", "--quick-gen-key", "Vendor <vendor@example.invalid>", "ed25519", "sign", "0")
    listed = gpg(home, "--list-keys", "--with-colons").decode().splitlines()
    fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr"))
    return gpg(home, "--export"), gpg(home, "--armor", "--export"), fingerprint


def test_the_fingerprint_is_gpgs(ring: tuple[bytes, bytes, str]) -> None:
    binary, armoured, fingerprint = ring
    assert fingerprints(binary) == fingerprints(armoured) == (fingerprint,)


def test_binary_and_armour_in_one_file_are_one_key(ring: tuple[bytes, bytes, str]) -> None:
    binary, armoured, fingerprint = ring
    keyring = trusted_keyring(binary + armoured, (fingerprint,), "https://example.invalid/key")
    assert keyring == binary


def test_spaces_in_a_known_fingerprint_do_not_matter(ring: tuple[bytes, bytes, str]) -> None:
    binary, _, fingerprint = ring
    spaced = " ".join(fingerprint[at : at + 4] for at in range(0, 40, 4)).lower()
    assert trusted_keyring(binary, (spaced,), "https://example.invalid/key") == binary


def test_another_key_is_refused_and_named(ring: tuple[bytes, bytes, str]) -> None:
    binary, _, fingerprint = ring
    with pytest.raises(Refused) as refused:
        trusted_keyring(binary, ("A" * 40,), "https://example.invalid/key")
    assert refused.value.code == "key.wrong"
    assert fingerprint in refused.value.why


def test_a_strangers_key_beside_the_wanted_one_is_left_out(ring: tuple[bytes, bytes, str], tmp_path: Path) -> None:
    binary, _, fingerprint = ring
    tmp_path.chmod(0o700)
    gpg(tmp_path, "--passphrase", "", "--quick-gen-key", "Other <other@example.invalid>", "ed25519", "sign", "0")
    other = gpg(tmp_path, "--export")
    assert fingerprints(trusted_keyring(other + binary, (fingerprint,), "https://example.invalid/key")) == (
        fingerprint,
    )


def test_packets_after_the_checked_key_are_left_out(ring: tuple[bytes, bytes, str], tmp_path: Path) -> None:
    """gpg finds the second key in the compressed packet (RFC 9580, 5.6), which follows the key that was checked."""
    binary, _, fingerprint = ring
    tmp_path.chmod(0o700)
    gpg(tmp_path, "--passphrase", "", "--quick-gen-key", "Other <other@example.invalid>", "ed25519", "sign", "0")
    body = b"\x01" + zlib.compress(gpg(tmp_path, "--export"), wbits=-15)
    hidden = b"\xc8\xff" + len(body).to_bytes(4, "big") + body
    shown = gpg(tmp_path, "--show-keys", "--with-colons", *_written(tmp_path, binary + hidden))
    assert shown.count(b"pub:") == 2
    for content in (binary + hidden, hidden + binary):
        assert trusted_keyring(content, (fingerprint,), "https://example.invalid/key") == binary


def _written(folder: Path, content: bytes) -> tuple[str]:
    (folder / "both.gpg").write_bytes(content)
    return (str(folder / "both.gpg"),)


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"])
def test_what_is_no_key_is_refused(content: bytes) -> None:
    with pytest.raises(Refused) as refused:
        trusted_keyring(content, ("A" * 40,), "https://example.invalid/key")
    assert refused.value.code == "key.unreadable"


def test_a_key_cut_short_is_no_key(ring: tuple[bytes, bytes, str]) -> None:
    with pytest.raises(InvalidKey):
        parse(ring[0][:-7])


@given(st.binary(max_size=400))
def test_any_bytes_are_a_key_or_not(content: bytes) -> None:
    with suppress(InvalidKey):
        assert parse(content)
