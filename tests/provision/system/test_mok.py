"""Which key signs the modules built here, and what a person must do to enrol it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from checks.facts.host import Firmware
from machine.local import Outcome
from provision.plan.driver.secure_boot import CERTIFICATE, is_enforced
from provision.system import mok
from tests.provision.hosts import Folder
from tests.provision.plan.machines import RTX_3090_TI, ubuntu

SHIM, DKMS = CERTIFICATE, "/var/lib/dkms/mok.pub"
FRAMEWORK = "/etc/dkms/framework.conf"


class Firm(Folder):
    """A machine whose mokutil and modinfo answer as told."""

    def __init__(self, top: Path, test: str = "is not enrolled", new: str = "MokNew is empty", key: str = "") -> None:
        super().__init__(top)
        self._said = {"--test-key": test, "--list-new": new, "-F": key}

    def run(self, argv: object, timeout: float = 5.0, env: object = None) -> Outcome:
        words = tuple(map(str, argv)) if isinstance(argv, (tuple, list)) else ()
        return Outcome(words, 0, self._said[words[1]] + "\n", "", 0.0)


def certificate(number: int) -> bytes:
    """The beginning of a certificate in DER, as far as its serial number."""
    digits = number.to_bytes((number.bit_length() + 8) // 8, "big")
    inner = b"\xa0\x03\x02\x01\x02" + b"\x02" + bytes([len(digits)]) + digits + b"\x30\x00" * 60
    return b"\x30\x82" + (len(inner) + 4).to_bytes(2, "big") + b"\x30\x82" + len(inner).to_bytes(2, "big") + inner


def test_ubuntus_key_before_dkms_own(tmp_path: Path) -> None:
    machine = Firm(tmp_path)
    assert mok.signing_certificate(machine, SHIM) == SHIM
    machine.put(DKMS, certificate(7))
    assert mok.signing_certificate(machine, SHIM) == DKMS
    machine.put(SHIM, certificate(9))
    assert mok.signing_certificate(machine, SHIM) == SHIM


@pytest.mark.parametrize("file", [FRAMEWORK, "/etc/dkms/framework.conf.d/company.conf"])
def test_a_key_in_dkms_settings_comes_first(tmp_path: Path, file: str) -> None:
    machine = Firm(tmp_path)
    machine.put(SHIM, certificate(9))
    machine.put("/srv/company.der", certificate(11))
    machine.put(
        file, '# mok_certificate=/old\nmok_signing_key="/srv/company.priv"\nmok_certificate="/srv/company.der"\n'
    )
    assert mok.signing_certificate(machine, SHIM) == "/srv/company.der"


def test_the_module_itself_says_whose_key_it_carries(tmp_path: Path) -> None:
    machine = Firm(tmp_path, key="0B:C5:2E:70")
    machine.put(SHIM, certificate(9))
    machine.put(DKMS, certificate(0x0BC52E70))
    assert mok.signing_certificate(machine, SHIM, "nvidia") == DKMS


def test_serial_numbers_of_real_certificates(tmp_path: Path) -> None:
    made = subprocess.run(
        [
            *("openssl", "req", "-new", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(tmp_path / "key"), "-outform", "DER", "-set_serial", "0xBC52E70A1", "-subj", "/CN=lab"),
        ],
        capture_output=True,
        check=True,
    ).stdout
    assert mok.serial_number(made) == "bc52e70a1"
    assert mok.serial_number(made[:6]) == mok.serial_number(b"no certificate") == mok.serial_number(b"") == ""


def test_a_request_that_was_missed_at_the_console(tmp_path: Path) -> None:
    machine = Firm(tmp_path, "is already in the enrollment request", "[key 1]\nSHA1 Fingerprint: 00:11")
    key = mok.read_mok_key(machine, SHIM)
    assert (key.enrolled, key.pending) == (False, True)
    assert "at the next boot" in mok.enrolment_steps(key)
    assert "--import" not in mok.enrolment_steps(key)


def test_a_key_without_a_request(tmp_path: Path) -> None:
    key = mok.read_mok_key(Firm(tmp_path), SHIM)
    assert (key.enrolled, key.pending) == (False, False)
    said = mok.enrolment_steps(key)
    assert f"sudo mokutil --import {SHIM}" in said
    assert "a q w z y m and symbols" in said
    assert "recovery key" in said
    # the password is asked for by mokutil itself
    assert "--password" not in said and "--hash-file" not in said


def test_an_enrolled_key_is_known(tmp_path: Path) -> None:
    assert mok.read_mok_key(Firm(tmp_path, "is already enrolled"), SHIM).enrolled


def test_a_private_key_that_others_can_read_is_reported(tmp_path: Path) -> None:
    machine = Firm(tmp_path)
    machine.put(SHIM, certificate(9))
    machine.put("/var/lib/shim-signed/mok/MOK.priv", b"secret")
    key = tmp_path / "var/lib/shim-signed/mok/MOK.priv"
    key.chmod(0o644)
    assert "sudo chmod 600" in mok.enrolment_steps(mok.read_mok_key(machine, SHIM))
    key.chmod(0o600)
    assert "chmod" not in mok.enrolment_steps(mok.read_mok_key(machine, SHIM))


@pytest.mark.parametrize(
    ("firmware", "wanted"),
    [
        (Firmware(uefi=True, secure_boot=True, lockdown="integrity"), True),
        (Firmware(uefi=True, secure_boot=True, lockdown="none"), False),
        (Firmware(uefi=True, secure_boot=True, shim_validation_disabled=True), False),
        (Firmware(uefi=True, secure_boot=False), False),
        (Firmware(), True),
    ],
)
def test_the_firmwares_word_alone_is_a_false_alarm(firmware: Firmware, wanted: bool) -> None:
    assert is_enforced(ubuntu(RTX_3090_TI, firmware=firmware)) is wanted
