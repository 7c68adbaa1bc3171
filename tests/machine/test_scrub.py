"""What leaves a recording, and what must stay in it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine import scrub
from machine.identities import Identities
from tests.cpu_time import at_most

pytestmark = pytest.mark.long

WHO = Identities(users=("alice", "bob"), host="rechenknecht", homes=("/home/alice", "/data/homes/alice"), salt=b"salt")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/home/alice/models and ~alice", "/home/user/models and ~user"),
        ("/home/carol/x", "/home/user/x"),
        ("/data/homes/alice/.cache", "/home/user/.cache"),
        ("uid=1000(alice) gid=1000(alice),27(sudo)", "uid=1000(user) gid=1000(user),27(sudo)"),
        ("bob@rechenknecht:~$ ssh rechenknecht.corp.example", "user2@host:~$ ssh host"),
        ("[    5.120000] rechenknecht kernel: NVRM: loading", "[    5.120000] host kernel: NVRM: loading"),
        ("[    5.120000] gpu kernel: NVRM: loading", "[    5.120000] host kernel: NVRM: loading"),
        ("deb https://ann:s3cret@apt.example.com/ubuntu noble", "deb https://redacted@apt.example.com/ubuntu noble"),
        ("http_proxy=http://a:p@ss@10.1.2.3:3128", "http_proxy=http://redacted@"),
        ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer redacted"),
        ("HF_TOKEN=hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "HF_TOKEN=redacted"),
        ("token ghp_0123456789abcdefghijABCDEFGHIJ012345", "token redacted"),
        ("AKIAIOSFODNN7EXAMPLE", "redacted"),
        ('"api_key": "two words"', '"api_key": "redacted"'),
        ("wifi.password='geheim'", "wifi.password='redacted'"),
        ('{"registry-mirrors": ["https://mirror.corp"]}', '{"registry-mirrors": ["redacted"]}'),
    ],
)  # fmt: skip
def test_what_goes(before: str, after: str) -> None:
    found = scrub.text(before, WHO)
    assert found == after or (after.endswith("@") and found.startswith(after))


@pytest.mark.parametrize(
    "secret",
    [
        "root=UUID=2f6d1c1e-7b52-4f4e-9f6a-0a1b2c3d4e5f",
        "root=PARTUUID=ABCD-1234",
        "rd.luks.uuid=luks-2f6d1c1e-7b52-4f4e-9f6a-0a1b2c3d4e5f",
        "root=/dev/disk/by-id/nvme-Samsung_SSD_980_PRO_S5GXNX0R123456",
        "link/ether 52:54:00:12:ab:cd",
        "inet 192.168.178.23/24",
        "inet6 2001:db8:85a3::8a2e:370:7334",
        "fe80::5054:ff:fe12:abcd%eth0",
        "Serial Number: S5GXNX0R123456",
        "mail to alice.smith@example.org please",
        "GPU-8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e413",
        "ip=10.20.30.40::10.20.30.1:255.255.255.0",
    ],
)
def test_ids_become_pseudonyms_that_differ_between_recordings(secret: str) -> None:
    one, other = scrub.text(secret, WHO), scrub.text(secret, WHO._replace(salt=b"other"))
    for piece in (
        "2f6d1c1e",
        "ABCD-1234",
        "S5GXNX0R",
        "52:54:00",
        "192.168",
        "2001:db8",
        "fe80",
        "smith",
        "8d3c7f52",
        "10.20.30",
    ):
        assert piece not in one
    assert one != secret and one != other
    assert one == scrub.text(secret, WHO)


@pytest.mark.parametrize(
    "line",
    [
        "0000:01:00.0 VGA compatible controller",
        "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build",
        "Linux version 6.8.0-31-generic (buildd@lcy02-amd64-080) (x86_64-linux-gnu-gcc-13 13.2.0)",
        "Version: 9.10.2.21-1",
        "Version: 6.8.0-31.31",
        "Depends: libnvjpeg (>= 12.3.3.54)",
        "amdgpu: ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=3",
        "getty@tty1.service user@1000.service",
        "127.0.0.1 localhost ::1",
        "BOOT_IMAGE=/vmlinuz-6.8.0-31-generic ro quiet splash iommu=pt pci=realloc",
        "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "deb [signed-by=/usr/share/keyrings/cuda.gpg] https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /",
        "mok_signing_key=/var/lib/dkms/mok.key",
        "ID=ubuntu\nVERSION_ID=\"24.04\"",
        "SHA1 Fingerprint: 76:a0:92:06:58:00:bf:37:69:01:c3:72:cd:55:a9:0e:1f:de:d2:e0",
        "GRUB_DISABLE_LINUX_UUID=true",
        "amdgpu 0000:03:00.0: amdgpu: SMU driver if version = 0x0000003d, smu fw if version = 0x0000003f (78.92.0)",
    ],
)  # fmt: skip
def test_what_a_diagnosis_needs_stays(line: str) -> None:
    assert scrub.text(line, WHO) == line


def test_names_that_are_common_words_go_only_where_a_name_must_stand() -> None:
    who = Identities(users=("docker",), host="ubuntu", homes=("/home/docker",))
    assert (
        scrub.text("ID=ubuntu docker.io docker@box /home/docker/x", who) == "ID=ubuntu docker.io user@box /home/user/x"
    )


def test_a_document_for_this_machine_keeps_what_its_commands_need() -> None:
    line = "usermod -aG render alice; /home/alice/x; GPU-8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e413; nvidia-cudnn==9.13.0.50"
    assert scrub.here(line) == line
    assert scrub.here("it says geheim77", ("geheim77",)) == "it says redacted"
    assert scrub.here("https://u:s3cret@apt.corp 10.1.2.3") == f"https://redacted@apt.corp {scrub.text('10.1.2.3')}"


PIECES = st.sampled_from(
    (
        *("alice", "bob", "rechenknecht", "user", "user2", "redacted", "uuid-12345678", "disk-", "ip-", "a@b.de"),
        *(
            "/",
            ":",
            "@",
            ".",
            "=",
            "-",
            "[",
            "]",
            '"',
            "'",
            "://",
            "//",
            "key",
            "token=",
            "UUID=",
            "Serial:",
            "Bearer ",
        ),
        *("10.0.0.1", "fe80::1", "52:54:00:12:ab:cd", "8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e413", "/home/", "luks-"),
        *("hf_AAAAAAAAAAAAAAAAAAAA", "[ 1.2] ", " kernel:", "\n"),
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=12).map("".join))
def test_scrubbing_twice_changes_nothing(value: str) -> None:
    once = scrub.text(value, WHO)
    assert scrub.text(once, WHO) == once


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_pass(value: bytes) -> None:
    assert scrub.data(scrub.data(value, WHO), WHO) == scrub.data(value, WHO)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "-",
            ".",
            ":",
            "://",
            "://a:b",
            "eyJ",
            "key=",
            "key:,",
            "ssh -a ",
            "-a ",
            "--fs-uuid ",
            "alice",
            "alice.",
            "/home/",
        ),
        *(
            "-----BEGIN PRIVATE KEY-----",
            '"registry-mirrors": ["',
            "a@",
            "a:b@",
            "10.0.",
            "fe80:",
            "00:",
            "Serial:",
            "ata-a_",
        ),
        *("login ", "password ", "UUID=", "[ 1.1] ", "hf_", "%40", "ssid=", "\\n", "Host ", "1-", '"', "by-id/"),
    ],
)
def test_no_text_takes_for_ever(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    with at_most(3):
        scrub.text(text, WHO)
