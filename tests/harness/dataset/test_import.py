"""Mail, chats and tables become Alpaca rows that say where they came from; what cannot be used is counted."""

from __future__ import annotations

import json
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from harness.dataset.alpaca import read_alpaca
from harness.dataset.findings import DataReport
from harness.dataset.imports.import_files import ImportSettings, format_of, import_files
from harness.dataset.imports.mail_text import split_mail, text_of_html
from machine.errors import BadAnswer, BadUsage

ME = "lena@garden.example.net"


def imported(
    tmp_path: Path, *files: Path, how: ImportSettings | None = None
) -> tuple[list[dict[str, str]], DataReport]:
    out = tmp_path / "out.json"
    with TemporaryDirectory(dir=tmp_path) as scratch:
        report = import_files(files, how or ImportSettings(), out, Path(scratch))
    rows = json.loads(out.read_text(encoding="utf-8"))
    # what the training itself reads, reads it
    assert len(read_alpaca(out)) == report.rows == len(rows)
    return rows, report


def mail(sender: str, text: str, id: str, answers: str = "", subject: str = "Apples", html: str = "") -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"], message["Message-ID"] = (
        sender,
        "you@example.org",
        subject,
        f"<{id}>",
    )
    if answers:
        message["In-Reply-To"] = f"<{answers}>"
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    return message.as_bytes()


def mbox(path: Path, *mails: bytes) -> Path:
    path.write_bytes(b"".join(b"From x Thu Jan  1 00:00:00 2026\n" + raw.rstrip(b"\n") + b"\n\n" for raw in mails))
    return path


def lines(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(json.dumps(value, ensure_ascii=False) for value in values), encoding="utf-8")
    return path


QUOTING = """Hello Tom,

take the early ones, they keep until Christmas.

Kind regards,
Lena Apfelbaum
Garden Ltd, +49 30 901820

On Mon, 2 Feb 2026 at 10:00, Tom Baker wrote:
> Which apples should I store?
> The red or the yellow ones?
>
> Tom
"""


def test_a_sent_folder_becomes_pairs_of_question_and_answer(tmp_path: Path) -> None:
    sent = mbox(tmp_path / "Sent.mbox", mail(f"Lena <{ME}>", QUOTING, "a1@x", "q1@x"))
    (row,), report = imported(tmp_path, sent)
    assert row["instruction"] == "Which apples should I store?\nThe red or the yellow ones?\n\nTom"
    assert row["output"] == "Hello Tom,\n\ntake the early ones, they keep until Christmas.\n\nKind regards,"
    assert (row["kind"], row["source"]) == ("organic", "Sent.mbox#0")
    assert report.origins.organic == 1


def test_the_thread_finds_the_question_in_the_inbox(tmp_path: Path) -> None:
    sent = mbox(tmp_path / "Sent", mail(ME, "Yes, both of them are fine.", "a1@x", "q1@x"))
    inbox = mbox(tmp_path / "Inbox", mail("tom@example.org", "Can I eat the yellow ones?\n\n-- \nTom\nBakery", "q1@x"))
    (row,), _ = imported(tmp_path, sent, how=ImportSettings(received=(inbox,)))
    assert row["instruction"] == "Can I eat the yellow ones?"
    (row,), _ = imported(tmp_path, sent, how=ImportSettings(received=(inbox,), instruction="Answer this mail."))
    assert (row["instruction"], row["input"]) == ("Answer this mail.", "Can I eat the yellow ones?")


def test_mails_that_are_not_answers_are_skipped_and_counted(tmp_path: Path) -> None:
    sent = mbox(
        tmp_path / "All.mbox",
        mail(ME, QUOTING, "a1@x", "q1@x"),
        mail(ME, "Just a thought that nobody asked for.", "n1@x"),
        mail(ME, "See below.\n\n" + QUOTING, "f1@x", "q1@x", subject="Fwd: Apples"),
        mail("tom@example.org", "Thanks, I will do that then!\n\n> take the early ones", "t1@x", "a1@x"),
        mail(ME, "> quoted only\n> nothing else", "e1@x", "q1@x"),
    )
    rows, report = imported(tmp_path, sent)
    assert len(rows) == 1
    assert sorted(report.skipped.values()) == [1, 1, 1, 1]
    assert any("someone else wrote" in reason for reason in report.skipped)
    assert any("forwarded" in reason for reason in report.skipped)


@pytest.mark.parametrize(
    ("text", "own", "quoted"),
    [
        ("Gerne!\n\nAm 3. März 2026 um 09:00 schrieb Tom <t@x.de>:\n> Kommst du?\n", "Gerne!", "Kommst du?"),
        ("Avec plaisir.\n\nLe mar. 3 mars 2026 à 09:00, Tom a écrit :\n> Tu viens ?\n", "Avec plaisir.", "Tu viens ?"),
        ("Claro.\n\nEl mar, 3 mar 2026 a las 9:00, Tom escribió:\n> ¿Vienes?\n", "Claro.", "¿Vienes?"),
        (
            "Sure.\n\n-----Original Message-----\nFrom: Tom\nSent: Monday\nTo: Lena\n\nAre you in?",
            "Sure.",
            "Are you in?",
        ),
        ("Ja.\n\nVon: Tom\nGesendet: Montag\nAn: Lena\nBetreff: Hallo\n\nBist du da?", "Ja.", "Bist du da?"),
        ("> Are you in?\n\nYes I am.\n\n> And Tom?\n\nHe is not.", "Yes I am.\n\nHe is not.", "Are you in?\nAnd Tom?"),
        ("Fine with me.\n\nSent from my iPhone", "Fine with me.", ""),
        ("All good.\n\n-- \nLena\nGarden Ltd", "All good.", ""),
        ("Passt.\n\nViele Grüße\nLena Apfelbaum\nGarten GmbH", "Passt.\n\nViele Grüße", ""),
    ],
)  # fmt: skip
def test_own_text_and_quoted_text(text: str, own: str, quoted: str) -> None:
    assert split_mail(text) == (own, quoted)


def test_html_mail_is_read_as_text(tmp_path: Path) -> None:
    page = "<html><style>p{}</style><p>Yes,&nbsp;take <b>both</b>.</p><blockquote><p>Which one?</p></blockquote></html>"
    assert split_mail(text_of_html(page)) == ("Yes, take both.", "Which one?")


def test_broken_headers_and_attachments(tmp_path: Path) -> None:
    attached = EmailMessage()
    attached["From"], attached["In-Reply-To"], attached["Message-ID"] = ME, "<q1@x>", "<a2@x>"
    attached.set_content("Here is the picture of the tree.\n\n> Can you send me a picture?")
    attached.add_attachment(b"\x00\xff" * 700_000, maintype="image", subtype="png", filename="tree.png")
    odd = (
        b"From: =?broken?Q?=FF?= <"
        + ME.encode()
        + b">\nIn-Reply-To: not an id\nContent-Type: text/plain; charset=klingon\n"
        b"Subject: =?utf-8?B?!!!?=\n\nGr\xfc\xdfe aus dem Garten.\n\n> Wie geht es dir?\n"
    )
    sent = mbox(
        tmp_path / "Sent", attached.as_bytes(), b"\x00\x01\x02 no header at all", odd, mail(ME, QUOTING, "a9@x")
    )
    rows, report = imported(tmp_path, sent)
    assert [row["output"][:10] for row in rows] == ["Here is th", "Grüße aus ", "Hello Tom,"]
    assert sum(report.skipped.values()) == 1


def test_openai_chat_and_sharegpt(tmp_path: Path) -> None:
    def said(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
        return [{"role": role, "content": content} for role, content in turns]

    shared = [("human", "One?"), ("gpt", "Two."), ("human", "Three?"), ("gpt", "Four.")]
    chat = lines(
        tmp_path / "chat.jsonl",
        {"messages": said(("system", "Be brief."), ("user", "Why?"), ("assistant", "Because."))},
        {"conversations": [{"from": role, "value": text} for role, text in shared]},
        {"messages": said(("user", [{"type": "text", "text": "Parts?"}]), ("assistant", "Joined."))},
        {"messages": said(("user", "Nobody answered"))},
    )
    rows, report = imported(tmp_path, chat)
    assert [(row["instruction"], row["output"]) for row in rows] == [
        ("Why?", "Because."),
        ("One?", "Two."),
        ("Parts?", "Joined."),
    ]
    assert rows[1]["source"] == "chat.jsonl#1" and rows[1]["kind"] == "semi-synthetic"
    assert sum(report.skipped.values()) == 2
    rows, _ = imported(tmp_path, chat, how=ImportSettings(all_turns=True))
    assert rows[2] == {
        "instruction": "Three?", "input": "User: One?\n\nAssistant: Two.", "output": "Four.",
        "source": "chat.jsonl#1", "kind": "semi-synthetic",
    }  # fmt: skip


def test_continue_development_data_and_sessions(tmp_path: Path) -> None:
    base = {"modelTitle": "Local", "modelProvider": "ollama", "sessionId": "s"}
    data = lines(
        tmp_path / "chatInteraction.jsonl",
        {
            **base,
            "prompt": "<system>\nYou help.\n\n<user>\nRename this function.\n\n",
            "completion": "def clean(): ...",
        },
        {**base, "prompt": "Plain question?", "completion": "Plain answer."},
        {**base, "prompt": "Bad one?", "completion": "Wrong.", "feedback": False},
    )
    rows, report = imported(tmp_path, data)
    assert [row["instruction"] for row in rows] == ["Rename this function.", "Plain question?"]
    assert any("thumbs-down" in reason for reason in report.skipped)
    session = lines(
        tmp_path / "session.json",
        {
            "sessionId": "s",
            "history": [
                {"message": {"role": "user", "content": "Hi?"}},
                {"message": {"role": "assistant", "content": "Yes."}},
            ],
        },
    )
    (row,), _ = imported(tmp_path, session)
    assert (row["instruction"], row["output"]) == ("Hi?", "Yes.")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b'question,answer\n"How, then?","Like\nthis."\n', "faq.csv"),
        ("Frage;Antwort;Thema\nHow, then?;\"Like\nthis.\";x\n".encode("cp1252"), "faq.csv"),
        ("pregunta\trespuesta\nHow, then?\t\"Like\nthis.\"\n".encode("utf-16"), "faq.tsv"),
        (b"\xef\xbb\xbfInstruction,Output\r\n\"How, then?\",\"Like\nthis.\"\r\n", "faq.csv"),
    ],
)  # fmt: skip
def test_tables_with_the_usual_column_names(tmp_path: Path, raw: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(raw)
    (row,), _ = imported(tmp_path, tmp_path / name)
    assert (row["instruction"], row["output"]) == ("How, then?", "Like\nthis.")
    assert row["source"].startswith(f"{name}#line ")


def test_columns_by_name_and_mixed_up_lines(tmp_path: Path) -> None:
    table = tmp_path / "support.csv"
    table.write_text(
        'id,Ticket,Reply\n1,Is it open?,"Yes, until six."\n2,,nothing\n3\n4,Cells \x00 with NUL,Fine.\n',
        encoding="utf-8",
    )
    with pytest.raises(BadUsage) as told:
        imported(tmp_path, table)
    assert told.value.code == "data.columns" and "Ticket" in told.value.why
    rows, report = imported(
        tmp_path, table, how=ImportSettings(columns={"instruction": "Ticket", "output": "Reply"}, kind="organic")
    )
    assert [row["instruction"] for row in rows] == ["Is it open?", "Cells \x00 with NUL"]
    assert {row["kind"] for row in rows} == {"organic"}
    assert sum(report.skipped.values()) == 2


def test_a_cell_above_the_size_limit(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"question,answer\na?,{'x' * 1_200_000}\nb?,short\n", encoding="utf-8")
    rows, report = imported(tmp_path, table)
    assert [row["instruction"] for row in rows] == ["b?"]
    assert any("not a table row" in reason for reason in report.skipped)


def test_instruction_json_keeps_its_marks(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "rows.jsonl",
        {"instruction": "Q", "input": "I", "output": "A", "kind": "synthetic", "source": "book#3"},
        {"prompt": "P", "completion": "C"},
        {"something": "else"},
        "text",
    )
    with source.open("a") as file:
        file.write('\n{"instruction": "cut')
    rows, report = imported(tmp_path, source)
    assert rows[0] == {"instruction": "Q", "input": "I", "output": "A", "source": "book#3", "kind": "synthetic"}
    assert (rows[1]["instruction"], rows[1]["source"]) == ("P", "rows.jsonl#1")
    assert sum(report.skipped.values()) == 3


def test_several_files_become_one(tmp_path: Path) -> None:
    one = lines(tmp_path / "one.jsonl", {"instruction": "Q1", "output": "A1"})
    two = tmp_path / "two.csv"
    two.write_text("question,answer\nQ2,A2\n", encoding="utf-8")
    rows, _ = imported(tmp_path, one, two)
    assert [row["instruction"] for row in rows] == ["Q1", "Q2"]


def test_nothing_usable_writes_nothing(tmp_path: Path) -> None:
    source = lines(tmp_path / "rows.jsonl", {"a": 1})
    with pytest.raises(BadAnswer) as told:
        imported(tmp_path, source)
    assert told.value.code == "data.no-rows" and "--columns" in told.value.why
    assert not (tmp_path / "out.json").exists() and not list(tmp_path.glob("*.part*"))


def test_formats_are_detected(tmp_path: Path) -> None:
    for name, raw, found in (
        ("a", b"From a@b Thu Jan 1\n", "mbox"), ("b.txt", b"[{}]", "json"), ("c", b'\xef\xbb\xbf{"a": 1}', "json"),
        ("d.csv", b"a", "csv"), ("e.dat", b"q;a\n1;2", "csv"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(raw)
        assert format_of(tmp_path / name) == found
    (tmp_path / "f.bin").write_bytes(b"\x7fELF")
    with pytest.raises(BadAnswer):
        format_of(tmp_path / "f.bin")


def test_a_session_file_that_spans_lines(tmp_path: Path) -> None:
    session = tmp_path / "session.json"
    turns = [{"message": {"role": "user", "content": "Hi?"}}, {"message": {"role": "assistant", "content": "Yes."}}]
    session.write_text(json.dumps({"sessionId": "s", "history": turns}, indent=2), encoding="utf-8")
    (row,), _ = imported(tmp_path, session)
    assert (row["instruction"], row["output"]) == ("Hi?", "Yes.")
