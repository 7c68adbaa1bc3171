"""The proxies that this process's environment names."""

from __future__ import annotations

from collections.abc import Mapping

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def proxy_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the environment variables that set a proxy, in either case."""
    return tuple(sorted(word for word in environ if word.lower() in PROXIES and environ[word]))


def is_proxy_local(environ: Mapping[str, str]) -> bool:
    """Whether a proxy runs on this machine, so that it can be reached only from the machine's own network."""
    return any("//127." in environ[word] or "//localhost" in environ[word] for word in proxy_variables(environ))
