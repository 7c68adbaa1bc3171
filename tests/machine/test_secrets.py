"""Two hundred secrets over everything that a recording reads: none is in the bundle, and the diagnosis is the same."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from checks.allowed import sources as allowed
from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.model import DoctorReport, Status
from checks.registry import ALL
from checks.runner import run
from gpu_setup import bundle
from machine.open_recording import open_recording
from machine.recorder import RecordingMachine, identities_of, machine_file
from machine.recording import RecordedMachine
from tests.machine.secrets_planted import KINDS, Secret, forms, plant, secrets
from tests.recorded_machines import unpack

pytestmark = pytest.mark.long

MACHINES = ("rtx3090-healthy", "rx7900xtx-healthy", "rtx3090-secureboot-dkms-rejected", "two-vendors")


def statuses(report: DoctorReport) -> dict[str, Status]:
    return {row.id: row.status for row in report.results}


def everything(data: bytes) -> bytes:
    """All that a bundle shows: names, link targets, contents, and the archive's own bytes as they are unpacked.

    Packed, its bytes are as good as random: three letters of a name appear in one archive of two hundred.
    """
    assert data[3] == 0, "the packed form says nothing beside the archive: no file name, no comment (RFC 1952, 2.3.1)"
    parts = [gzip.decompress(data)]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            parts += [
                member.name.encode("utf-8", "surrogateescape"),
                member.linkname.encode("utf-8", "surrogateescape"),
            ]
            file = archive.extractfile(member) if member.isreg() else None
            parts += [file.read()] if file else []
    return b"\n".join(parts)


def leaks(data: bytes, found: list[Secret]) -> list[tuple[str, str]]:
    """The secrets that a bundle or a machine file shows."""
    shown = (everything(data) if data.startswith(b"\x1f\x8b") else data).lower()
    return [
        (secret.kind, secret.line)
        for secret in found
        for text in secret.hidden
        if any(len(form) > 2 and form.lower() in shown for form in forms(text))
    ]


@pytest.mark.parametrize("name", MACHINES)
def test_no_secret_is_in_bundle_or_machine_file_and_the_diagnosis_is_the_same(tmp_path: Path, name: str) -> None:
    place = tmp_path / "machine"
    unpack(name, place)
    found = secrets(seed=len(name))
    assert len(found) >= 200 and len(KINDS) >= 20
    plant(place, found)

    seen = RecordingMachine(RecordedMachine(place))
    report = run(read_host(seen), catalogue(), ALL)
    file = str(tmp_path / "bundle.tar.gz")
    written = bundle.write(seen, report, catalogue(), file, force=False)

    assert leaks(Path(file).read_bytes(), found) == []
    assert written.different == ()
    assert statuses(run(read_host(open_recording(file)), catalogue(), ALL)) == statuses(report)
    assert written.size < 1_000_000

    text = machine_file(seen, identities_of(seen.machine), {"name": "x"}, allowed)
    (tmp_path / "x.machine").write_bytes(text)
    assert leaks(text, found) == []
    assert statuses(run(read_host(open_recording(str(tmp_path / "x.machine"))), catalogue(), ALL)) == statuses(report)


def test_the_search_finds_planted_secrets() -> None:
    """The test above can fail: an archive that holds the secrets as planted shows all kinds of them."""
    found = secrets(seed=1)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for number, secret in enumerate(found):
            line = secret.line.encode()
            member = tarfile.TarInfo(f"file{number}")
            member.size = len(line)
            archive.addfile(member, io.BytesIO(line))
    assert {kind for kind, _ in leaks(data.getvalue(), found)} == {secret.kind for secret in found}
