"""Passwords, tokens, keys and credentials in addresses: each is replaced by `redacted`."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from machine.identities import REDACTED

# Published prefixes: Hugging Face, GitHub, GitLab, AWS, Google, OpenAI/Anthropic, Slack, PyPI, npm, Docker Hub, NVIDIA
# NGC, Tailscale, Groq, Replicate, Vault, SendGrid, Stripe, DigitalOcean, Atlassian, age, Ubuntu Pro; JSON web tokens
_TOKEN = re.compile(
    r"(?:(?<![A-Za-z0-9])(?:sk-[\w-]{20,}|xox[abeprs]-[\w-]{10,}|npm_[A-Za-z0-9]{20,}|tskey-[\w-]{16,}|gsk_\w{20,}"
    r"|r8_[A-Za-z0-9]{20,}|hv[sb]\.[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}|[rs]k_(?:live|test)_\w{16,}|dop_v1_\w{20,}"
    r"|ATATT[\w=-]{20,}|AGE-SECRET-KEY-1\w{20,}|ya29\.[\w-]{20,}|nvapi-[\w-]{20,}|C1[1-9A-HJ-NP-Za-km-z]{27,29})"
    r"|hf_[A-Za-z0-9]{16,}|gh[opusr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}|dckr_pat_[\w-]{16,}"
    r"|pypi-[\w-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)(?![A-Za-z0-9])"
)
# one of these is in every token: looking for them first is much faster
_TOKEN_MARKS = (
    *("sk-", "xox", "npm_", "tskey-", "gsk_", "r8_", "hvs.", "hvb.", "SG.", "k_live_", "k_test_", "dop_v1_", "ATATT"),
    *("AGE-SECRET-KEY-1", "ya29.", "nvapi-", "C1", "hf_", "gho_", "ghp_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "dckr_pat_", "pypi-", "AKIA", "ASIA", "AIza", "eyJ"),
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.{0,8000}?-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----", re.DOTALL
)
# a block whose end is missing: its lines, with whatever is before each
_KEY_LINE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{40,}={0,2}")
# 32 bytes in base64 are a WireGuard key and hardly anything else; AAAA begins a key of ssh; |1| a host in known_hosts
_RAW_KEY = re.compile(
    r"(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/]{43}=|AAAA[A-Za-z0-9+/]{30,}={0,3}|SHA256:[A-Za-z0-9+/]{43})(?![A-Za-z0-9+/=])"
    r"|\|1\|[A-Za-z0-9+/=]{20,}\|[A-Za-z0-9+/=]{20,}"
)
_BEARER = re.compile(
    r"(?i)\b(bearer|basic|token)(\s+)(?!redacted\b)(?=[A-Za-z0-9+/._~-]*[0-9+/=])[A-Za-z0-9+/._~-]{12,}=*"
)
# a password may hold a slash; `host:8080/path@1` is none
_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s\"'/:@]{1,200}:(?!\d{1,5}/)[^\s\"'@]{1,400}|[^/\s\"']+)(?=@)")
_BARE_CREDENTIALS = re.compile(r"(?<![\w/@.:-])[\w.+-]+:[^\s\"'@/:]{3,}(?=@[\w.-]+:\d)")
_SECRET = re.compile(
    r"(?i)(?<![A-Za-z])((?:[\w-]{0,40}[_-])?(?:password|passwd|passphrase|pass|pwd|psk|token|secret|auth|credentials?"
    r"|(?:api|access|auth|private|preshared|public|shared|account|secret|host)_?key|key|sig)"
    r"[\"']?[ \t]*[=:][ \t]*)(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s\"']+?(?=[,;}\])]{0,8}(?:[\s\"']|$))))"
)
# no secrets: a file that holds the key, small numbers, and the words for "none"
_NO_SECRET = re.compile(
    r"(?i)^(?:$|/|\(|[{\[]|none\b|null\b|true\b|false\b|yes\b|no\b|redacted$|\d{0,3}$|0x[0-9a-f]{1,8}$)"
)
_ARGUMENT = re.compile(
    r"(?i)((?<![\w-])--(?:[a-z-]+-)?(?:password|passwd|passphrase|token|secret|(?:api-|auth-|access-)?key|psk)[ \t]+)"
    r"(?!-)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']+)"
)
# auth.conf(5), netrc(5)
_LOGIN = re.compile(r"(?i)\b(login[ \t\n]+)\S+((?:[ \t\n]+password[ \t\n]+)?)((?<=\s)\S+)?")
_PASSWORD_WORD = re.compile(r"(?i)\b(password[ \t]+)(?=\S*\d|(?-i:\S*[a-z]\S*[A-Z])|\S*[!$%&#+])[^\s\"']{6,}")
_SSID = re.compile(r"(?i)\b(e?ssid(?:_name)?[\"']?[ \t]*[=:][ \t]*)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',;][^\n\"',;]*)")
_SSH = re.compile(r"(?i)(ssh://)[^\s\"'/]+")
_SSH_COMMAND = re.compile(
    r"(?<![\w.-])((?:ssh|scp|sftp|mosh)[ \t]+(?:-[A-Za-z][ \t]+\S+[ \t]+|-[A-Za-z]+[ \t]+){0,4})"
    r"(?:[\w.-]+@[\w.-]+|[A-Za-z][\w-]*(?:\.[\w-]+)+)"
)
_SSH_CONFIG = re.compile(r"(?m)(^[ \t]*Host[ \t]+)\S.*$|(\b(?:HostName|Hostname|ProxyJump)[ \t]+)\S+")
_AT_HOST = re.compile(r"(?<![\w.@/+-])(?!(?:user\d*|root)@host\b)[A-Za-z_][\w.-]*@[A-Za-z][\w.-]*(?=:[/~\w])")
_HOST_VARIABLE = re.compile(r"(?i)\b(tcp://)(?!127\.|localhost|\[::1)[^\s\"'/:]+")

# Amazon's names of resources and ids of machines, disks and networks; Google's projects; Oracle's ids
_CLOUD = re.compile(
    r"\barn:[\w-]*:[^\s\"',;]+|(?<![\w-])(?:i|vol|eni|ami|subnet|vpc|sg)-(?=[0-9a-f]*\d)[0-9a-f]{8,17}(?![\w-])"
    r"|\bocid1\.[\w.-]+|(?<=\bprojects/)[^\s/\"',;]+"
)

_HAS_CLOUD = re.compile(r"-[0-9a-f]{8}|arn:|ocid1\.|projects/").search

_NAMED_SECRET = re.compile(r"(?i)TOKEN|SECRET|PASS|KEY(?!BOARD|MAP|TIMEOUT)|CREDENTIAL|(?<!X)AUTH|PSK")
_SHORTEST = 6


def redact(value: str) -> str:
    """The text with every secret replaced; the rest is as it was."""
    if "PRIVATE KEY-----" in value:
        value = _KEY_LINE.sub(REDACTED, _KEY_BLOCK.sub(REDACTED, value))
    if any(mark in value for mark in _TOKEN_MARKS):
        value = _TOKEN.sub(REDACTED, value)
    value = _RAW_KEY.sub(REDACTED, value)
    if _HAS_CLOUD(value):
        value = _CLOUD.sub(REDACTED, value)
    value = _BEARER.sub(rf"\1\2{REDACTED}", value)
    value = _CREDENTIALS.sub(REDACTED, value)
    value = _BARE_CREDENTIALS.sub(REDACTED, value)
    value = _SECRET.sub(_redact_value, value)
    value = _ARGUMENT.sub(rf"\1{REDACTED}", value)
    value = _LOGIN.sub(_redact_login, value)
    value = _PASSWORD_WORD.sub(rf"\1{REDACTED}", value)
    value = _SSID.sub(rf'\1"{REDACTED}"', value)
    value = _SSH.sub(rf"\1{REDACTED}", value)
    value = _SSH_COMMAND.sub(rf"\1{REDACTED}", value)
    value = _SSH_CONFIG.sub(lambda m: f"{m[1] or m[2]}{REDACTED}", value)
    value = _AT_HOST.sub(f"{REDACTED}@{REDACTED}", value)
    return _HOST_VARIABLE.sub(rf"\1{REDACTED}", value)


def _redact_value(match: re.Match[str]) -> str:
    if _NO_SECRET.match(match[2] or match[3] or match[4] or ""):
        return match[0]
    quoted = '"' if match[2] is not None else "'" if match[3] is not None else ""
    return f"{match[1]}{quoted}{REDACTED}{quoted}"


def _redact_login(match: re.Match[str]) -> str:
    # `login screen`, `login: tty1` are no credentials: only what a password follows
    if not match[2] or match[3] is None:
        return match[0]
    return f"{match[1]}{REDACTED}{match[2]}{REDACTED}"


def literals(environ: Mapping[str, str], *more: str) -> tuple[str, ...]:
    """Values to hide wherever they occur, longest first: of variables that are named like secrets, and `more`."""
    found = [*more]
    for name, value in environ.items():
        if name.lower().endswith("_proxy") and "@" in value:
            found += value.partition("://")[2].rpartition("@")[0].split(":", 1)
        elif _NAMED_SECRET.search(name):
            found.append(value)
    return tuple(sorted(set(_forms(found)), key=lambda form: (-len(form), form)))


def _forms(values: Iterable[str]) -> Iterator[str]:
    """Each value as it is, in base64, and quoted for an address; not paths, small words and numbers."""
    for value in map(str.strip, values):
        if len(value) < _SHORTEST or value.startswith("/") or _NO_SECRET.match(value) or value.isdecimal():
            continue
        raw = value.encode("utf-8", "surrogateescape")
        yield value
        yield base64.b64encode(raw).decode().rstrip("=")
        yield quote(raw, safe="")
