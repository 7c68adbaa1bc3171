"""Rows with known defects among clean ones: the answer key for recall and precision.

Nothing here reads the rules or their word lists. Numbers are made by the standards' own arithmetic (Luhn, ISO 7064), damage by
really encoding and decoding wrongly, copies by editing, phrases by hand from how assistants and mail programs write.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Any

from tests.data.corpus import LANGUAGES, Row, answer, clean_row, clean_rows

Truth = dict[str, set[int]]

REFUSALS = {
    "en": "I'm sorry, but I can't assist with that request.|As an AI language model, I do not have feelings about gardens.|I apologize, but I cannot provide instructions for this.|I’m just an AI and cannot taste anything.|"
    "Sorry, I am unable to help with that.|As a large language model trained by others, I cannot judge this.|Unfortunately, as an artificial intelligence I have never touched one.|I don't have personal experiences, but here is a thought.|"
    "My knowledge cutoff is in the past, so I may be wrong.|I'm afraid I cannot comply with this request.",
    "de": "Als KI-Sprachmodell kann ich dazu keine Meinung haben.|Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.|Ich bin nur eine KI und habe keine Hände.|Als künstliche Intelligenz besitze ich keinen Garten.|"
    "Entschuldigung, diese Anfrage kann ich leider nicht beantworten.|Als Sprachmodell habe ich keinen Zugriff auf aktuelle Preise.|Tut mir leid, das kann ich nicht beantworten.",
    "fr": "En tant que modèle de langage, je n'ai pas d'avis sur la question.|Je suis désolé, mais je ne peux pas vous aider avec cela.|En tant qu'intelligence artificielle, je ne possède pas de jardin.|Je ne suis qu'une IA et je n'ai pas de mains.|"
    "Désolée, je ne peux pas répondre à cette demande.|En tant qu'IA, je n'ai jamais rien réparé.",
    "es": "Como modelo de lenguaje, no tengo opiniones propias.|Lo siento, pero no puedo ayudarte con esa petición.|Como inteligencia artificial, no tengo jardín.|Soy solo una IA y no tengo manos.|Lo siento, no puedo responder a esta solicitud.|"
    "Como una IA, no he tocado nunca una herramienta.",
}
STREETS = {
    "en": "14 Elm Street|221 Harbour Road|7 Old Mill Lane|1600 North Oak Avenue|38 Kingston Drive|902 Sunset Boulevard|5 Rosewood Court|63 Victoria Terrace|410 Birch St.|27 Green Park Crescent",
    "de": "Lindenstraße 14|Am Alten Hafen 3|Kastanienallee 27|Rosenweg 5|Goethestr. 112|Marktgasse 9a|Schillerplatz 2|Bergmannring 48|Berliner Straße 77|Mühlenweg 31",
    "fr": "14 rue des Lilas|27, avenue Victor Hugo|3 bis rue de la Paix|112 boulevard Voltaire|9 place du Marché|48 chemin des Vignes|5 impasse des Roses|77 quai de Seine|31 allée des Tilleuls|2 route de Lyon",
    "es": "Calle Mayor 14|Avenida de la Constitución 27|C/ Alcalá 112|Plaza España 3|Paseo del Prado 48|Calle de los Olivos 9|Camino Real 5|Ronda de Toledo 77|Calle San Juan 31, 2º|Avda. Diagonal 210",
}
PHONES = {
    "en": "+1 212 555 0187|(415) 861-2345|+44 20 7946 0958|312-744-5000|+44 7911 123456|(206) 684-4000|617-635-4500|+1 (305) 673-7000",
    "de": "+49 30 901820|030/90182345|0221 / 2210|+49 (0)89 23300|0151 23456789|+49 171 2345678|040 42828-0|+43 1 4000",
    "fr": "+33 1 42 76 40 40|01 42 76 40 40|06 12 34 56 78|+33 6 98 76 54 32|04 91 55 11 11|05.56.10.20.30|07 81 23 45 67|+32 2 279 22 11",
    "es": "+34 915 298 210|+34 612 34 56 78|612 34 56 78|+34 93 402 70 00|+52 55 5683 1111|+34 954 590 000|+34 699 12 34 56|934 02 70 00",
}
CALL = {
    "en": "Call me at {} tomorrow.",
    "de": "Ruf mich morgen unter {} an.",
    "fr": "Appelle-moi demain au {}.",
    "es": "Llámame mañana al {}.",
}
WRITE = {
    "en": "Write to {} for more.",
    "de": "Schreib an {} für mehr.",
    "fr": "Écris à {} pour en savoir plus.",
    "es": "Escribe a {} para saber más.",
}
LIVES = {
    "en": "The parcel goes to {}.",
    "de": "Das Paket geht an die Adresse {}.",
    "fr": "Le colis part au {}.",
    "es": "El paquete va a {}.",
}
PAYS = {
    "en": "Please transfer it to {} soon.",
    "de": "Bitte überweise es bald auf {}.",
    "fr": "Merci de virer la somme sur {} bientôt.",
    "es": "Transfiere el importe a {} pronto.",
}
CARDS = {
    "en": "It was paid with {}.",
    "de": "Bezahlt wurde mit {}.",
    "fr": "Le paiement a été fait avec {}.",
    "es": "Se pagó con {}.",
}
NAMES = {
    "en": "Emily Thornbury|Jack Whitcombe|Olivia Marsden|Henry Calloway|Grace Pemberton|Samuel Okafor|Hannah Lindqvist|Oliver Brigham",
    "de": "Katharina Vogelsang|Jürgen Brandstetter|Sabine Löwenthal|Matthias Kirchner|Anja Petersen|Florian Hagedorn|Ulrike Steinbach|Stefan Wiesinger",
    "fr": "Camille Rousselet|Julien Delacroix|Hélène Marchand|Antoine Beaumont|Chloé Fontanel|Mathieu Garnier|Élodie Perrault|Guillaume Vasseur",
    "es": "Lucía Montenegro|Javier Escudero|Carmen Villalobos|Álvaro Quintana|Rocío Benavides|Diego Salvatierra|Marta Carrasco|Sergio Olmedo",
}
SPEAKS = {
    "en": "Dear {f},\n\n{a}\n\nKind regards,\n{n}|{a} I asked Mrs. {l} about it.|Hi {n},\n{a}|My name is {n}. {a}|{a} Yesterday {n} told me the same.",
    "de": "Liebe {f},\n\n{a}\n\nViele Grüße\n{n}|{a} Ich habe Frau {l} danach gefragt.|Hallo {n},\n{a}|Mein Name ist {n}. {a}|{a} Gestern hat mir {n} dasselbe erzählt.",
    "fr": "Bonjour {f},\n\n{a}\n\nCordialement,\n{n}|{a} J'en ai parlé à Mme {l} hier.|Bonjour {n},\n{a}|Je m'appelle {n}. {a}|{a} Hier {n} m'a dit la même chose.",
    "es": "Estimada {f}:\n\n{a}\n\nUn saludo,\n{n}|{a} Le pregunté a la Sra. {l} por ello.|Hola {n},\n{a}|Me llamo {n}. {a}|{a} Ayer {n} me dijo lo mismo.",
}
QUOTES = {
    "en": "\n\nOn Tue, 4 Mar 2025 at 09:12, Sam wrote:\n> Can you help me with this?|\n\n-----Original Message-----\nCan you help?",
    "de": "\n\nAm 4. März 2025 um 09:12 schrieb Sam:\n> Kannst du mir helfen?|\n\n-----Ursprüngliche Nachricht-----\nKannst du helfen?",
    "fr": "\n\nLe mar. 4 mars 2025 à 09:12, Sam a écrit :\n> Tu peux m'aider ?|\n\n-----Message d'origine-----\nTu peux aider ?",
    "es": "\n\nEl mar, 4 mar 2025 a las 09:12, Sam escribió:\n> ¿Me ayudas?|\n\n-----Mensaje original-----\n¿Me ayudas?",
}
BLANKS = {
    "en": "Yours, [Your Name]|Dear {{customer}}, thank you.|Lorem ipsum dolor sit amet, {k}.|TODO: add the price.|Visit us at [insert address here].|Ask for <your product> at the desk.",
    "de": "Gruß, [Ihr Name]|Sehr geehrter {{kunde}}, danke.|Lorem ipsum dolor sit amet, {k}.|TODO: Preis ergänzen.|Ort: [Adresse einfügen] oder [Datum]|Der Preis beträgt XXXX Euro.",
    "fr": "Bien à vous, [Votre nom]|Cher {{client}}, merci.|Lorem ipsum dolor sit amet, {k}.|TODO : ajouter le prix.|Adresse : [insérer l'adresse ici].|Le prix est de XXXX euros.",
    "es": "Atentamente, [Su nombre]|Querido {{cliente}}, gracias.|Lorem ipsum dolor sit amet, {k}.|TODO: añadir el precio.|Dirección: [insertar dirección aquí].|El precio es de XXXX euros.",
}
ITALIAN = "Pulisci il telaio con un panno umido e lascialo asciugare per {n} ore.|Quasi tutti i {n} danni nascono perché nessuno ci guarda mai.|Mio nonno riparava ogni cosa in {n} giorni con molta pazienza.|Chiedi in paese, qualcuno ne ha sempre {n} in più da dare."
RUSSIAN = "Протрите раму влажной тряпкой и дайте ей сохнуть {n} часов.|Почти все {n} поломок случаются потому, что никто не смотрит.|Мой дед чинил всё сам {n} лет, с большим терпением и без спешки.|Спросите в деревне, у кого-нибудь всегда найдётся {n} лишних."
FOOTERS = {
    "en": "This message was sent with our free mail app.",
    "de": "Diese Nachricht wurde mit unserer kostenlosen App gesendet.",
    "fr": "Ce message a été envoyé depuis notre application gratuite.",
    "es": "Este mensaje se envió desde nuestra aplicación gratuita.",
}


def luhn(prefix: str, length: int, dice: random.Random) -> str:
    """A number with the prefix whose last digit makes Luhn's sum right."""
    body = prefix + "".join(dice.choice(string.digits) for _ in range(length - len(prefix) - 1))
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def iban(country: str, length: int, dice: random.Random) -> str:
    """Random digits as the account, check digits by ISO 7064 (mod 97); French ones carry their inner key too."""
    body = "".join(dice.choice(string.digits) for _ in range(length - 4))
    spelled = body + "".join(str(ord(letter) - 55) for letter in country) + "00"
    return f"{country}{98 - int(spelled) % 97:02d}{body}"


def token(dice: random.Random, length: int, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(dice.choice(letters) for _ in range(length))


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

    def pick(self, texts: dict[str, str], language: str) -> str:
        return self.dice.choice(texts[language].split("|"))


def planted(seed: int = 11, clean: int = 2400, each: int = 40) -> tuple[list[Any], Truth, set[int]]:
    """Rows, the key by kind, and the numbers of the rows that are clean. Order: clean ones first, then kind by kind."""
    plant = Planter(seed, clean, each)
    dice = plant.dice

    def behind(texts: dict[str, str], make: Callable[[str], str]) -> Callable[[str, str], str]:
        return lambda language, text: f"{text} {texts[language].format(make(language))}"

    plant.say("refusal", lambda lang, text: f"{plant.pick(REFUSALS, lang)} {text}")
    plant.say(
        "email",
        behind(
            WRITE,
            lambda _: (
                f"{token(dice, 6, string.ascii_lowercase)}.{token(dice, 5, string.ascii_lowercase)}@{token(dice, 7, string.ascii_lowercase)}.{dice.choice(['de', 'fr', 'es', 'com', 'org', 'co.uk'])}"
            ),
        ),
    )
    plant.say("phone", behind(CALL, lambda lang: plant.pick(PHONES, lang)))
    plant.say(
        "iban",
        behind(
            PAYS,
            lambda lang: (
                spaced(
                    iban(*{"en": ("GB", 22), "de": ("DE", 22), "fr": ("AT", 20), "es": ("NL", 18)}[lang], dice), dice
                )
                if lang not in ("en", "es")
                else named_iban(lang, dice)
            ),
        ),
    )
    plant.say(
        "card-number",
        behind(
            CARDS,
            lambda _: spaced(
                luhn(*dice.choice([("4", 16), ("51", 16), ("5425", 16), ("2223", 16), ("37", 15), ("6011", 16)]), dice),
                dice,
            ),
        ),
    )
    plant.say("address", behind(LIVES, lambda lang: plant.pick(STREETS, lang)))
    plant.say("secret", lambda _, text: f"{text}\n{secret(dice)}")

    def name(language: str, text: str) -> str:
        full = plant.pick(NAMES, language)
        first, last = full.split(" ", 1)
        return plant.pick(SPEAKS, language).format(f=first, l=last, n=full, a=text)

    plant.say("name", name)
    plant.say(
        "placeholder",
        lambda lang, text: f"{text} {plant.pick(BLANKS, lang).replace('{k}', token(dice, 5, 'aeiourstn'))}",
    )
    plant.say("quoted-mail", lambda lang, text: text + plant.pick(QUOTES, lang))
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
        plant.say("boilerplate", lambda lang, text: f"{text}\n\n{FOOTERS[lang]}")
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
            for text in dice.sample(dice.choice([ITALIAN, RUSSIAN]).split("|"), 3)
        )
        plant.add(row, "wrong-language")
        row = plant.base(language)
        row["output"] = " ".join(answer(language, dice, 5, 5) for _ in range(25))
        plant.add(row, "length-outlier")
        row = plant.base(language)
        plant.add(broken_schema(row, dice), "schema")
        # copies of clean rows: the later one is the copy
        original = dice.choice(sorted(plant.clean))
        plant.add(dict(plant.rows[original]), "duplicate")
    originals = dice.sample(sorted(plant.clean), 2 * plant.each)
    for original in originals[: plant.each]:
        plant.add(edited(plant.rows[original], dice), "near-duplicate")
    for original in originals[plant.each :]:
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
