"""Signing keys: read from the vendor's file, compared by fingerprint, and only then trusted."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from machine.errors import OutsideFailed, Refused

LARGEST = 1 << 20
# RFC 9580, packet type IDs
_PUBLIC_KEY = 6
_SECRET = (5, 7)
# what belongs to a public key besides it: signatures, user ids, subkeys, user attributes (RFC 9580, 10.1.1)
_BELONGING = (2, 13, 14, 17)
_BLOCK = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\n(?:[^\n:]+:[^\n]*\n)*\s*\n(.*?)\n=?[^\n]{0,8}\n?"
    rb"-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)


class SigningKey(NamedTuple):
    """One primary key with its user ids, subkeys and signatures, in binary form."""

    fingerprint: str
    content: bytes


class InvalidKey(Exception):
    """The bytes are not OpenPGP public keys; the text says why."""


def parse(content: bytes) -> tuple[SigningKey, ...]:
    """The primary keys in a file: binary, armoured, or both in sequence; each key once. Raises NoKey."""
    found: dict[str, SigningKey] = {}
    begin = content.find(b"-----BEGIN PGP")
    binary, armoured = (content, b"") if begin < 0 else (content[:begin], content[begin:])
    parts = [binary] if binary.strip() else []
    for block in _BLOCK.findall(armoured.replace(b"\r\n", b"\n")):
        body = b"".join(line for line in block.splitlines() if not line.startswith(b"="))
        try:
            parts.append(base64.b64decode(body, validate=True))
        except (binascii.Error, ValueError) as error:
            raise InvalidKey(f"its armour is damaged ({error})") from error
    for part in parts:
        for key in _keys(part):
            found.setdefault(key.fingerprint, key)
    if not found:
        raise InvalidKey("it contains no public key")
    return tuple(found.values())


def trusted_keyring(content: bytes, fingerprints: tuple[str, ...], url: str) -> bytes:
    """The keyring with only the wanted keys; refuses a file that has none of them."""
    wanted = {_plain(fingerprint) for fingerprint in fingerprints}
    try:
        keys = parse(content)
    except InvalidKey as error:
        raise Refused(
            "key.unreadable",
            f"{url} did not send a signing key: {error}.",
            "Often a proxy sends its own page, or the download was incomplete.",
            "Open the address in a browser; behind a proxy set https_proxy, then run the command again.",
        ) from error
    kept = [key.content for key in keys if key.fingerprint in wanted]
    if not kept:
        raise Refused(
            "key.wrong",
            f"The signing key at {url} is not the expected one.",
            f"Its fingerprint is {', '.join(key.fingerprint for key in keys)}; expected: "
            f"{', '.join(sorted(wanted)) or 'none'}. It was not trusted, and nothing was installed.",
            "The vendor may have changed its key: read the vendor's announcement; a newer gpu-setup will know it. "
            "Do not add the key by hand before that.",
        )
    return b"".join(kept)


def fingerprints(keyring: bytes) -> tuple[str, ...]:
    """Fingerprints in a keyring on disk; empty if it is not a keyring."""
    try:
        return tuple(key.fingerprint for key in parse(keyring))
    except InvalidKey:
        return ()


def fetch(url: str, timeout: float = 30.0, largest: int = LARGEST) -> bytes:
    """The bytes at the address, through the environment's proxies and certificates; at most `largest`."""
    import os
    import ssl
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPSHandler, Request, build_opener

    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("CURL_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    try:
        context = ssl.create_default_context(cafile=bundle or None)
        opener = build_opener(HTTPSHandler(context=context))
        with opener.open(Request(url, headers={"User-Agent": "gpu-setup"}), timeout=timeout) as answer:
            content = bytes(answer.read(largest + 1))
            length = answer.headers.get("Content-Length")
    except HTTPError as error:
        raise _download_problem(url, f"The server answers {error.code} {error.reason}.") from error
    except URLError as error:
        raise _download_problem(url, f"{error.reason}.") from error
    except (OSError, ValueError) as error:
        raise _download_problem(url, f"{error}.") from error
    if len(content) > largest:
        raise Refused(
            "key.large", f"The file at {url} is larger than any key.", f"It has more than {largest} bytes.", ""
        )
    if length is not None and length.isdecimal() and len(content) < int(length):
        raise _download_problem(url, f"The download stopped after {len(content)} of {length} bytes.")
    return content


def _download_problem(url: str, why: str) -> OutsideFailed:
    return OutsideFailed(
        "key.unfetched",
        f"The signing key could not be fetched from {url}.",
        f"{why[:1].upper()}{why[1:]}",
        "Check the network; behind a proxy set https_proxy, with a company's certificate set SSL_CERT_FILE. "
        "Then run the command again: this step changed nothing.",
    )


def _keys(content: bytes) -> Iterator[SigningKey]:
    """Primary keys with their user ids, subkeys and signatures, in the file's order.

    Any other packet is left out: a compressed packet can hold further keys, which gpg reads.
    """
    found: list[tuple[str, bytearray]] = []
    for kind, begin, body, end in _packets(content):
        if kind in _SECRET:
            raise InvalidKey("it contains a secret key")
        if kind == _PUBLIC_KEY:
            found.append((_fingerprint(content[body:end]), bytearray(content[begin:end])))
        elif kind in _BELONGING and found:
            found[-1][1].extend(content[begin:end])
    return (SigningKey(fingerprint, bytes(packets)) for fingerprint, packets in found)


def _packets(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(type, begin, begin of the body, end) of each packet (RFC 9580, 4.2). Raises InvalidKey on truncated content."""
    at = 0
    while at < len(content):
        begin, head = at, content[at]
        if not head & 0x80:
            raise InvalidKey("it is not in OpenPGP format")
        try:
            if head & 0x40:
                kind, first = head & 0x3F, content[at + 1]
                if first < 192:
                    size, at = first, at + 2
                elif first < 224:
                    size, at = ((first - 192) << 8) + content[at + 2] + 192, at + 3
                elif first == 255:
                    size, at = int.from_bytes(content[at + 2 : at + 6], "big"), at + 6
                else:
                    raise InvalidKey("a part of it has no length")
            else:
                kind, width = (head >> 2) & 0x0F, (1, 2, 4, 0)[head & 3]
                if not width:
                    raise InvalidKey("a part of it has no length")
                size, at = int.from_bytes(content[at + 1 : at + 1 + width], "big"), at + 1 + width
        except IndexError as error:
            raise InvalidKey("it is truncated") from error
        if at + size > len(content):
            raise InvalidKey("it is truncated")
        yield kind, begin, at, at + size
        at += size


def _fingerprint(body: bytes) -> str:
    """RFC 9580, 5.5.4: SHA-1 for version 4, SHA-256 for version 6."""
    version = body[0] if body else 0
    if version == 4:
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise InvalidKey(f"its version {version} is not supported")


def _plain(fingerprint: str) -> str:
    return re.sub(r"[^0-9A-F]", "", fingerprint.upper())
