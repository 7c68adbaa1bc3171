"""Rows with known defects among clean ones: the answer key for recall and precision.

Nothing here reads the rules or their word lists. Numbers are made by the standards' own arithmetic, damage by
really encoding and decoding wrongly, copies by editing; the phrases are in planted.toml.
"""

from __future__ import annotations

import random
import string
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.dataset.corpus import LANGUAGES, Row, answer, clean_row, clean_rows

Truth = dict[str, set[int]]

TEXTS = tomllib.loads((Path(__file__).with_name("planted.toml")).read_text(encoding="utf-8"))


def luhn(prefix: str, length: int, dice: random.Random) -> str:
    """A number with the prefix whose last digit makes Luhn's sum right."""
    body = prefix + "".join(dice.choice(string.digits) for _ in range(length - len(prefix) - 1))
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def iban(country: str, length: int, dice: random.Random) -> str:
    """Random digits as the account, check digits by ISO 7064 (mod 97)."""
    body = "".join(dice.choice(string.digits) for _ in range(length - 4))
    spelled = body + "".join(str(ord(letter) - 55) for letter in country) + "00"
    return f"{country}{98 - int(spelled) % 97:02d}{body}"


def token(dice: random.Random, length: int, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(dice.choice(letters) for _ in range(length))


def mail_address(dice: random.Random) -> str:
    first, last, host = (token(dice, length, string.ascii_lowercase) for length in (6, 5, 7))
    return f"{first}.{last}@{host}.{dice.choice(['de', 'fr', 'es', 'com', 'org', 'co.uk'])}"


def secret(dice: random.Random) -> str:
    mixed = token(dice, 20)
    return dice.choice(
        [
            "AK" + "IA" + token(dice, 16, "ABCDEFGHJKLMNPQRSTUVWXYZ234567"),
            "gh" + "p_" + token(dice, 36),
            "sk" + "-proj-" + token(dice, 48),
            "h" + "f_" + token(dice, 34, string.ascii_letters),
            "xo" + "xb-" + token(dice, 11, string.digits) + "-" + token(dice, 24),
            "-----BEGIN RSA " + "PRIVATE KEY-----\n" + token(dice, 64) + "\n-----END RSA PRIVATE KEY-----",
            "ey" + "J" + token(dice, 20) + ".ey" + "J" + token(dice, 60) + "." + token(dice, 43),
            f"password: {mixed}7q",
            f"api_key = '{mixed}4z'",
            f"postgres://admin:{mixed}@db.internal:5432/shop",
        ]
    )


def mangled(text: str, dice: random.Random) -> str:
    """UTF-8 read as Windows-1252: what a wrongly set import makes of it."""
    try:
        return text.encode("utf-8").decode("cp1252")
    except UnicodeDecodeError:
        return text.encode("utf-8").decode("latin-1")


class Planter:
    """Builds the rows and keeps the key: which row has which defect."""

    def __init__(self, seed: int, clean: int, each: int) -> None:
        # another stream than the clean rows', or the planted answers would be copies of theirs
        self.dice = random.Random(f"planted {seed}")
        self.rows: list[Any] = []
        self.truth: Truth = {}
        self.each = each
        self.clean: set[int] = set()
        self._spare = clean_rows(clean + each * 60, seed)
        self._next = dict.fromkeys(LANGUAGES, 0)
        for number in range(clean):
            self.clean.add(self.add(self.base(LANGUAGES[number % 4])))

    def base(self, language: str) -> Row:
        """The next clean row in the language; its question is asked nowhere else."""
        number = self._next[language]
        self._next[language] = number + 1
        return self._spare[LANGUAGES.index(language) + 4 * number]

    def add(self, row: Any, *kinds: str) -> int:
        number = len(self.rows)
        self.rows.append(row)
        for kind in kinds:
            self.truth.setdefault(kind, set()).add(number)
        return number

    def say(self, kind: str, make: Callable[[str, str], str], *more: str) -> None:
        """`each` rows whose answer is `make(language, answer)`."""
        for number in range(self.each):
            language = LANGUAGES[number % 4]
            row = clean_row(language, self.dice)
            row["instruction"] = self.base(language)["instruction"]
            row["output"] = make(language, row["output"])
            self.add(row, kind, *more)

    def pick(self, texts: dict[str, list[str]], language: str) -> str:
        return self.dice.choice(texts[language])


def planted(seed: int = 11, clean: int = 2400, each: int = 40) -> tuple[list[Any], Truth, set[int]]:
    """Rows, the key by kind, and the numbers of the rows that are clean. Order: clean ones first, then kind by kind."""
    plant = Planter(seed, clean, each)
    dice = plant.dice

    def behind(texts: dict[str, list[str]], make: Callable[[str], str]) -> Callable[[str, str], str]:
        return lambda language, text: f"{text} {dice.choice(texts[language]).format(make(language))}"

    plant.say("refusal", lambda lang, text: f"{plant.pick(TEXTS['refusals'], lang)} {text}")
    plant.say(
        "email",
        behind(
            TEXTS["write"],
            lambda _: mail_address(dice),
        ),
    )
    plant.say("phone", behind(TEXTS["call"], lambda lang: plant.pick(TEXTS["phones"], lang)))
    plant.say(
        "iban",
        behind(
            TEXTS["pays"],
            lambda lang: (
                named_iban(lang, dice)
                if lang in ("en", "es")
                else spaced(iban(*{"de": ("DE", 22), "fr": ("AT", 20)}[lang], dice), dice)
            ),
        ),
    )
    plant.say(
        "card-number",
        behind(
            TEXTS["cards"],
            lambda _: spaced(
                luhn(*dice.choice([("4", 16), ("51", 16), ("5425", 16), ("2223", 16), ("37", 15), ("6011", 16)]), dice),
                dice,
            ),
        ),
    )
    plant.say("address", behind(TEXTS["lives"], lambda lang: plant.pick(TEXTS["streets"], lang)))
    plant.say("secret", lambda _, text: f"{text}\n{secret(dice)}")

    def name(language: str, text: str) -> str:
        full = plant.pick(TEXTS["names"], language)
        first, last = full.split(" ", 1)
        return plant.pick(TEXTS["speaks"], language).format(f=first, l=last, n=full, a=text)

    plant.say("name", name)
    plant.say(
        "placeholder",
        lambda lang, text: f"{text} {plant.pick(TEXTS['blanks'], lang).replace('{k}', token(dice, 5, 'aeiourstn'))}",
    )
    plant.say("quoted-mail", lambda lang, text: text + plant.pick(TEXTS["quotes"], lang))
    plant.say(
        "template-marker",
        lambda _, text: dice.choice(
            [
                "<|im_start|>assistant\n{}<|im_end|>",
                "{}</s>",
                "[INST] {} [/INST]",
                "### Response:\n{}",
                "<start_of_turn>model {}<end_of_turn>",
                "<|eot_id|>{}",
            ]
        ).format(text),
    )
    plant.say(
        "markup",
        lambda _, text: dice.choice(
            ["<p>{}</p>", "{}<br/><br>", "{}&nbsp;&amp; so on.", '<div class="c">{}</div>', "&quot;{}&quot;"]
        ).format(text),
    )
    plant.say("control-characters", lambda _, text: text[:20] + dice.choice("\x00\x07\x08\x1b\x0b") + text[20:])
    plant.say("invisible-characters", lambda _, text: text[:20] + dice.choice("\u200b\u202e\u2066\u2060") + text[20:])
    plant.say("lost-characters", lambda _, text: text.replace("e", "\ufffd", 2))
    plant.say("byte-order-mark", lambda _, text: "\ufeff" + text)
    plant.say("mojibake", lambda lang, text: mangled(with_accents(lang, text, dice), dice))
    plant.say("loop", lambda _, text: " ".join([text.split(". ")[0].rstrip(".") + "."] * dice.randint(5, 9)))
    plant.say("cut-answer", lambda _, text: cut(text, dice))
    plant.say("untrimmed", lambda _, text: dice.choice(["  {}", "{}\n\n", "\t{} "]).format(text))
    for _ in range(3):
        plant.say("boilerplate", lambda lang, text: f"{text}\n\n{TEXTS['footers'][lang][0]}")
    for number in range(plant.each):
        language = LANGUAGES[number % 4]
        row = plant.base(language)
        dice.choice([_empty_output, _blank_instruction])(row)
        plant.add(row, "empty")
        material = answer(language, dice)
        plant.add({"instruction": plant.base(language)["instruction"], "input": material, "output": material}, "echo")
        row = plant.base(language)
        row["output"] = answer(LANGUAGES[(number + 1) % 4], dice)
        plant.add(row, "answer-language")
        row = plant.base(language)
        row["output"] = " ".join(
            text.format(n=dice.randrange(2, 9000))
            for text in dice.sample(dice.choice(list(TEXTS["foreign"].values())), 3)
        )
        plant.add(row, "wrong-language")
        row = plant.base(language)
        row["output"] = " ".join(answer(language, dice, 5, 5) for _ in range(25))
        plant.add(row, "length-outlier")
        row = plant.base(language)
        plant.add(broken_schema(row, dice), "schema")
    # each clean row is copied at most once, so that no copy is also a conflict; the later one is the copy
    originals = dice.sample(sorted(plant.clean), 3 * plant.each)
    for original in originals[: plant.each]:
        plant.add(dict(plant.rows[original]), "duplicate")
    for original in originals[plant.each : 2 * plant.each]:
        plant.add(edited(plant.rows[original], dice), "near-duplicate")
    for original in originals[2 * plant.each :]:
        asked = plant.rows[original]
        number = plant.add({**asked, "output": answer(LANGUAGES[original % 4], dice)}, "label-conflict")
        plant.truth["label-conflict"] |= {original, number}
    return plant.rows, plant.truth, plant.clean - plant.truth["label-conflict"]


def _empty_output(row: Row) -> None:
    row["output"] = " \n"


def _blank_instruction(row: Row) -> None:
    row["instruction"] = ""


def broken_schema(row: Row, dice: random.Random) -> Any:
    choice = dice.randrange(6)
    if choice == 0:
        return [row["instruction"], row["output"]]
    if choice == 1:
        return row["output"]
    if choice == 2:
        return {**row, "output": 17}
    if choice == 3:
        return {**row, "input": None}
    if choice == 4:
        return {"prompt": row["instruction"], "completion": row["output"]}
    return {**row, "output": [row["output"]]}


def edited(row: Row, dice: random.Random) -> Row:
    """One or two words of the answer changed, or one left out, or other punctuation and case."""
    words = row["output"].split()
    for _ in range(dice.randint(1, 2)):
        place = dice.randrange(3, len(words) - 1)
        if dice.random() < 0.5:
            words[place] = dice.choice(["42", "lavender", "Zimt", "marron", "azul"])
        else:
            del words[place]
    text = " ".join(words)
    return {**row, "output": dice.choice([text, text.upper(), text.replace(".", " !")])}


def cut(text: str, dice: random.Random) -> str:
    """The text as a limit on its length leaves it: in the middle of its last sentence."""
    words = text.split()
    last = max(place for place, word in enumerate(words[:-1]) if word.endswith((".", "!", "?")))
    return (
        " ".join(words[: last + 1 + max(5, (len(words) - last) // 2 + 1)]).rstrip(".,;:")
        if len(words) - last > 6
        else " ".join(words[:-1]).rstrip(".") + ","
    )


def with_accents(language: str, text: str, dice: random.Random) -> str:
    extra = {
        "en": "It’s the café’s – “naïve” – price: 5 €.",
        "de": "Größe über Maß.",
        "fr": "C'est déjà très élevé, à côté.",
        "es": "Mañana también habrá ñandú y café.",
    }
    return f"{text} {extra[language]}" if dice.random() < 0.9 else f"{extra[language]} {text}"


def spaced(number: str, dice: random.Random) -> str:
    """As people write it: in fours, or all together."""
    return number if dice.random() < 0.4 else " ".join(number[at : at + 4] for at in range(0, len(number), 4))


def named_iban(language: str, dice: random.Random) -> str:
    """Britain and the Netherlands: four letters for the bank, then digits."""
    country, bank, digits = ("GB", "WEST", 14) if language == "en" else ("NL", "ABNA", 10)
    body = bank + "".join(dice.choice(string.digits) for _ in range(digits))
    spelled = "".join(str(int(sign, 36)) for sign in body + country) + "00"
    return spaced(f"{country}{98 - int(spelled) % 97:02d}{body}", dice)
