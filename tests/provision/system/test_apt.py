"""Output of apt and dpkg: simulations, progress, and failures as one message each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.errors import OUTSIDE_FAILED, REFUSED
from machine.events import Event
from machine.local import Outcome
from provision.apply_context import ApplyContext
from provision.system.apt import AptProgress, ProgressReporter, parse_progress
from provision.system.apt_errors import apt_problem, failing_addresses
from provision.system.apt_simulation import parse_missing, parse_simulation, parse_uris
from tests.provision.hosts import Nowhere

SIMULATED = """\
NOTE: This is only a simulation!
Reading package lists...
Remv nvidia-driver-550 [550.163.01-0ubuntu1]
Inst libnvidia-compute-580 (580.173.02-0ubuntu0.24.04.1 Ubuntu:24.04/noble-updates [amd64])
Inst linux-modules-nvidia-580-open-6.8.0-88-generic (6.8.0-88.89 Ubuntu:24.04/noble-updates [amd64]) []
Inst libc6 [2.39-0ubuntu8.5] (2.39-0ubuntu8.6 Ubuntu:24.04/noble-updates [amd64])
Inst libnvidia-gl-580:i386 (580.173.02-0ubuntu0.24.04.1 Ubuntu:24.04/noble-updates [i386])
Conf libnvidia-compute-580 (580.173.02-0ubuntu0.24.04.1 Ubuntu:24.04/noble-updates [amd64])
"""


def test_a_simulation_lists_installs_upgrades_and_removals() -> None:
    change = parse_simulation(SIMULATED)
    assert set(change.installs) == {
        "libnvidia-compute-580",
        "linux-modules-nvidia-580-open-6.8.0-88-generic",
        "libnvidia-gl-580:i386",
    }
    assert change.upgrades == {"libc6": ("2.39-0ubuntu8.5", "2.39-0ubuntu8.6")}
    assert change.removes == {"nvidia-driver-550": "550.163.01-0ubuntu1"}
    assert change.version("libc6") == "2.39-0ubuntu8.6"
    assert change.matching(("libnvidia-*", "dkms")) == ("libnvidia-compute-580", "libnvidia-gl-580:i386")


def test_what_a_second_transaction_adds_to_the_first() -> None:
    first = parse_simulation("Inst a (1 X [amd64])\n")
    both = parse_simulation("Inst a (1 X [amd64])\nInst b [1] (2 X [amd64])\n")
    assert both.without(first).installs == {}
    assert both.without(first).upgrades == {"b": ("1", "2")}


def test_uris_have_their_sizes() -> None:
    said = "Reading...\n'http://a/pool/n_1%3a2_amd64.deb' n_1%3a2_amd64.deb 1234 SHA256:ab\n"
    assert parse_uris(said) == {"n_1%3a2_amd64.deb": 1234}


def test_names_that_apt_does_not_have() -> None:
    said = "E: Unable to locate package amdrocm\nE: Package 'nvidia-open' has no installation candidate\n"
    assert parse_missing(said) == ("amdrocm", "nvidia-open")


def test_progress_is_read_also_after_a_line_without_an_end() -> None:
    assert parse_progress("(Reading database ... dlstatus:3:20.5:Retrieving file 1 of 5") == AptProgress(
        "fetch", 20.5, "Retrieving file 1 of 5"
    )
    assert parse_progress("pmstatus:libc6:amd64:40.0:Installing libc6 (amd64)") == AptProgress(
        "work", 40.0, "Installing libc6 (amd64)"
    )
    assert parse_progress("Setting up libc6 (2.39) ...") is None


def test_bytes_and_time_left() -> None:
    told: list[Event] = []
    moments = iter((0.0, 10.0))
    teller = ProgressReporter(ApplyContext(Nowhere(), told.append), lambda: next(moments))
    teller.line("Need to get 1,000 B/3,072 kB of archives.")
    teller.line("dlstatus:1:25.0:Retrieving file 1 of 4")
    assert (told[0].done, told[0].total, told[0].unit, told[0].seconds_left) == (250.0, 1000.0, "bytes", 30.0)


def test_who_holds_the_lock_is_said() -> None:
    told: list[Event] = []
    ProgressReporter(ApplyContext(Nowhere(), told.append)).line(
        "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. "
        "It is held by process 812 (unattended-upgr)"
    )
    assert "unattended-upgr (812)" in told[0].text


WORDS = {
    "apt.server": "E: Failed to fetch http://a/n_1_amd64.deb  500  Internal Server Error [IP: 1.2.3.4 80]",
    "apt.not-found": "E: Failed to fetch http://a/n_595.84_amd64.deb  404  Not Found [IP: 1.2.3.4 80]",
    "apt.hash": "E: Failed to fetch http://a/n_1_amd64.deb  Hash Sum mismatch",
    "apt.truncated": "E: Failed to fetch http://a/n_1_amd64.deb  Undetermined Error [IP: 1.2.3.4 80]",
    "apt.network": "E: Failed to fetch http://a/InRelease  Temporary failure resolving 'a'",
    "key.missing": "W: GPG error: http://a ./ InRelease: the following signatures couldn't be verified because the "
    "public key is not available: NO_PUBKEY A4B469963BF863CC",
    "key.expired": "W: GPG error: http://a ./ InRelease: invalid: EXPKEYSIG A4B469963BF863CC cudatools",
    "key.bad-signature": "W: GPG error: http://a ./ InRelease: invalid: BADSIG A4B469963BF863CC cudatools",
    "clock.wrong": "E: Release file for http://a/InRelease is not valid yet (invalid for another 5d 3h). Updates …",
    "apt.expired": "E: Release file for http://a/InRelease is expired (invalid since 5d 3h). Updates …",
    "disk.full": "E: You don't have enough free space in /var/cache/apt/archives/.",
    "dpkg.interrupted": "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.",
    "apt.sources-conflict": "E: Conflicting values set for option Signed-By regarding source http://a/ /: /k1 != /k2",
    "dpkg.script": "Error! Bad return status for module build\n"
    "dpkg: error processing package nvidia-dkms-580 (--configure):\n"
    " installed nvidia-dkms-580 package post-installation script subprocess returned error exit status 10\n"
    "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    "file.read-only": "dpkg: error: unable to create lock: Read-only file system",
    "apt.certificate": "E: Failed to fetch https://a/ Certificate verification failed: The certificate is NOT trusted.",
}


@pytest.mark.parametrize("code", WORDS)
def test_a_failure_has_its_step_cause_and_next_action(code: str) -> None:
    found = apt_problem(("apt-get", "install"), Outcome((), 100, WORDS[code], "", 1.0), "Install the driver")
    assert found.code == code
    assert found.exit_code in (OUTSIDE_FAILED, REFUSED)
    assert found.what.startswith("Install the driver: apt-get failed")
    assert found.why and found.next.endswith(".")
    assert "{" not in found.why + found.next


def test_a_failed_build_is_quoted() -> None:
    found = apt_problem(("apt-get",), Outcome((), 100, WORDS["dpkg.script"], "", 1.0), "Install")
    assert "nvidia-dkms-580" in found.why
    assert "Bad return status for module build" in found.why


def test_passwords_in_addresses_are_never_printed() -> None:
    said = "E: Failed to fetch https://me:secret@mirror.example/InRelease  500  Internal Server Error [IP: 1 80]"
    found = apt_problem(("apt-get",), Outcome((), 100, said, "", 1.0), "Update")
    assert "secret" not in str(found)
    assert failing_addresses(said) == ("https://…@mirror.example/InRelease",)


@given(st.text(max_size=300))
def test_any_words_make_a_message(said: str) -> None:
    parse_simulation(said)
    parse_progress(said)
    assert apt_problem(("apt-get",), Outcome((), 100, said, "", 1.0), "Install").what
