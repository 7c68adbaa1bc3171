"""Clean rows in four languages, made from sentence patterns: different enough that no two are near-duplicates.

Written for these tests without looking at the rules' word lists. The rows are synthetic; what they say is not meant to be true.
"""

from __future__ import annotations

import random
from typing import Any

Row = dict[str, Any]

THINGS = {
    "en": "bicycle|kettle|garden fence|wool coat|printer|old radio|bread dough|kitchen knife|tent|water filter|bookshelf|camera lens|winter tyre|clay pot|sewing machine|door lock|piano|compost heap|ladder|"
    "desk lamp|fishing rod|paint brush|coffee grinder|roof gutter|sleeping bag|chess clock|hedge|drill|aquarium|violin string",
    "de": "Fahrrad|Wasserkocher|Gartenzaun|Wollmantel|Drucker|Radio|Brotteig|Küchenmesser|Zelt|Wasserfilter|Bücherregal|Objektiv|Winterreifen|Tontopf|Nähkästchen|Türschloss|Klavier|Komposthaufen|Dachfenster|"
    "Schreibtisch|Angelhaken|Malpinsel|Kaffeesieb|Regenfass|Schlafsack|Schachbrett|Gewächshaus|Bohrfutter|Aquarium|Geigenbogen",
    "fr": "vélo|bouilloire en cuivre|portail|manteau|imprimante|poste de radio|levain|couteau|réchaud|filtre|étagère|objectif|pneu|pot en terre|machine à coudre|serrure|piano|bac à compost|échelle|"
    "lampe|canne à pêche|pinceau|moulin à café|gouttière|sac de couchage|échiquier|serre|perceuse|aquarium|violon",
    "es": "bicicleta|tetera|valla|abrigo de lana|impresora|radio antigua|masa madre|cuchillo|tienda de campaña|filtro|estantería|objetivo|neumático|maceta|máquina de coser|cerradura|piano|compostera|escalera|"
    "lámpara|caña de pescar|brocha|molinillo|canalón|saco de dormir|tablero de ajedrez|invernadero|taladro|acuario|guitarra",
}
PLACES = {
    "en": "in the shed|near the window|at the lake|on the balcony|in a cool cellar|beside the stove|at the workshop|under the stairs|by the river|on the top shelf|in the hallway|behind the barn|at school|in the attic",
    "de": "im Schuppen|am Fenster|am See|auf dem Balkon|im kühlen Keller|neben dem Herd|in der Werkstatt|unter der Treppe|am Fluss|im obersten Fach|im Flur|hinter der Scheune|in der Schule|auf dem Dachboden",
    "fr": "dans la remise|près de la fenêtre|au bord du lac|sur le balcon|dans une cave fraîche|à côté du poêle|à l'atelier|sous l'escalier|près de la rivière|tout en haut|dans l'entrée|derrière la grange|à l'école|au grenier",
    "es": "en el cobertizo|junto a la ventana|a orillas del lago|en el balcón|en un sótano fresco|al lado de la estufa|en el taller|debajo de la escalera|cerca del río|arriba del todo|en el pasillo|detrás del granero|en la escuela|en el desván",
}
TIMES = {
    "en": "every spring|after a long rain|before the first frost|twice a year|on a dry evening|in the first week|once the sun is low|during the holidays|early in the morning|when guests arrive|at the weekend|in late autumn",
    "de": "jedes Frühjahr|nach langem Regen|vor dem ersten Frost|zweimal im Jahr|an einem trockenen Abend|in der ersten Woche|bei tiefer Sonne|in den Ferien|früh am Morgen|vor dem Besuch|am Wochenende|im Spätherbst",
    "fr": "chaque printemps|après une longue pluie|avant les premières gelées|deux fois par an|par une soirée sèche|la première semaine|au coucher du soleil|pendant les vacances|tôt le matin|avant la visite|le week-end|à la fin de l'automne",
    "es": "cada primavera|después de una larga lluvia|antes de la primera helada|dos veces al año|en una tarde seca|durante la primera semana|al caer el sol|en las vacaciones|muy temprano|antes de la visita|el fin de semana|a finales del otoño",
}
QUESTIONS = {
    "en": "How should I look after a {t} {p}?|What is the best way to store a {t} {w}?|My {t} makes a strange noise {w}; what could that be?|Is it worth repairing a {t} that has stood {p} for years?|Explain to a child how a {t} works.|"
    "Which tools do I need when I clean a {t} {p}?|Can a {t} be used {w} without any risk?|Give me three ideas for an old {t} {p}.|Why does my {t} smell so odd {w}?|How long does a new {t} last {p}?|Who invented the {t}, and what was it for?|"
    "Write a short note that reminds my neighbours of the {t} {p}.",
    "de": "Wie pflege ich ein {t} {p}?|Wie lagert man ein {t} {w} am besten?|Mein {t} macht {w} seltsame Geräusche, woran kann das liegen?|Lohnt es sich, ein {t} zu reparieren, das jahrelang {p} stand?|Erkläre einem Kind, wie ein {t} funktioniert.|"
    "Welches Werkzeug brauche ich, um ein {t} {p} zu reinigen?|Darf man ein {t} {w} ohne Bedenken benutzen?|Nenne mir drei Ideen für ein altes {t} {p}.|Warum riecht mein {t} {w} so merkwürdig?|Wie lange hält ein neues {t} {p}?|"
    "Seit wann gibt es eigentlich das {t}, und wozu diente es?|Schreibe einen kurzen Zettel, der die Nachbarn an das {t} {p} erinnert.",
    "fr": "Comment entretenir un {t} {p} ?|Quelle est la meilleure façon de ranger un {t} {w} ?|Mon {t} fait un bruit étrange {w}, d'où cela peut-il venir ?|Vaut-il la peine de réparer un {t} resté {p} pendant des années ?|"
    "Explique à un enfant comment fonctionne un {t}.|De quels outils ai-je besoin pour nettoyer un {t} {p} ?|Peut-on utiliser un {t} {w} sans danger ?|Donne-moi trois idées pour un vieux {t} {p}.|Pourquoi mon {t} sent-il si mauvais {w} ?|"
    "Combien de temps dure un {t} neuf {p} ?|Depuis quand existe le {t}, et à quoi servait-il ?|Écris un petit mot qui rappelle aux voisins le {t} {p}.",
    "es": "¿Cómo se cuida un {t} {p}?|¿Cuál es la mejor manera de guardar un {t} {w}?|Mi {t} hace un ruido raro {w}, ¿a qué puede deberse?|¿Vale la pena reparar un {t} que lleva años {p}?|Explica a un niño cómo funciona un {t}.|"
    "¿Qué herramientas necesito para limpiar un {t} {p}?|¿Se puede usar un {t} {w} sin ningún riesgo?|Dame tres ideas para un viejo {t} {p}.|¿Por qué huele tan raro mi {t} {w}?|¿Cuánto dura un {t} nuevo {p}?|"
    "¿Desde cuándo existe el {t} y para qué servía?|Escribe una nota breve que recuerde a los vecinos el {t} {p}.",
}
ANSWERS = {
    "en": "Wipe the {t} with a damp cloth {w} and let it dry {p}.|Most damage to a {t} happens {w}, because nobody looks at it.|Two people can lift the {t} easily once it has been emptied {p}.|"
    "If the {t} still moves {w}, a drop of oil is enough.|A good {t} costs about {n} euros and lasts {m} years.|Keep the {t} {p}, where children cannot reach it.|My grandfather repaired his {t} {w} with nothing but patience.|"
    "First check whether the screws of the {t} have come loose {p}.|You will hear a soft click as soon as the {t} sits right {w}.|Never leave the {t} {p} for longer than {m} days.|The colour of a {t} fades {w}, and that is quite normal.|"
    "Ask in the village; somebody always has a spare {t} {p}.|It takes {m} minutes to take the {t} apart {w}.|Paper around the {t} keeps the damp away {p}.|Some swear by vinegar for the {t} {w}, others prefer warm soap.|"
    "What matters is that air can pass under the {t} {p}.|Once the {t} feels warm {w}, stop and wait a little.|A thin layer of wax protects the {t} {p} from scratches.|Listen closely {w}: a healthy {t} hums evenly.|"
    "Put a label on the {t} {p} so that you find it again.|The smaller parts of the {t} belong into a tin {p}.|Old leather on a {t} likes a little grease {w}.",
    "de": "Wische das {t} {w} mit einem feuchten Tuch ab und lass es {p} trocknen.|Die meisten Schäden am {t} entstehen {w}, weil niemand hinsieht.|Zu zweit hebt man das {t} leicht an, wenn es {p} geleert ist.|"
    "Bewegt sich das {t} {w} noch, genügt ein Tropfen Öl.|Ein gutes {t} kostet etwa {n} Euro und hält {m} Jahre.|Bewahre das {t} {p} auf, wo Kinder nicht hinkommen.|Mein Großvater reparierte sein {t} {w} nur mit Geduld.|"
    "Prüfe zuerst, ob sich die Schrauben am {t} {p} gelockert haben.|Ein leises Klicken zeigt, dass das {t} {w} richtig sitzt.|Lass das {t} {p} nie länger als {m} Tage stehen.|Die Farbe am {t} bleicht {w} aus, das ist ganz normal.|"
    "Frag im Dorf herum, irgendwer hat {p} immer ein {t} übrig.|Es dauert {m} Minuten, das {t} {w} zu zerlegen.|Papier um das {t} hält {p} die Feuchtigkeit fern.|Manche schwören {w} beim {t} auf Essig, andere auf warme Seife.|"
    "Wichtig ist, dass {p} Luft unter das {t} kommt.|Wird das {t} {w} warm, hör auf und warte ein wenig.|Eine dünne Schicht Wachs schützt das {t} {p} vor Kratzern.|Hör {w} genau hin: Ein gesundes {t} klingt gleichmäßig.|"
    "Kleb {p} einen Zettel an das {t}, damit du es wiederfindest.|Die kleinen Teile vom {t} gehören {p} in eine Dose.|Altes Leder am {t} mag {w} etwas Fett.",
    "fr": "Essuie le {t} {w} avec un chiffon humide et laisse-le sécher {p}.|Le {t} s'abîme surtout {w}, parce que personne ne le regarde.|À deux, on soulève facilement le {t} une fois vidé {p}.|"
    "Si le {t} bouge encore {w}, une goutte d'huile suffit.|Un bon {t} coûte environ {n} euros et dure {m} ans.|Garde le {t} {p}, hors de portée des enfants.|Mon grand-père réparait son {t} {w} avec de la patience.|"
    "Vérifie d'abord si les vis du {t} se sont desserrées {p}.|Un petit clic indique que le {t} est bien en place {w}.|Ne laisse jamais le {t} {p} plus de {m} jours.|La couleur du {t} pâlit {w}, c'est tout à fait normal.|"
    "Demande au village, quelqu'un a toujours un {t} de trop {p}.|Il faut {m} minutes pour démonter le {t} {w}.|Du papier autour du {t} le protège de l'humidité {p}.|Certains ne jurent que par le vinaigre pour le {t} {w}, d'autres par le savon tiède.|"
    "L'essentiel est que l'air passe sous le {t} {p}.|Dès que le {t} chauffe {w}, arrête et attends un peu.|Une fine couche de cire protège le {t} {p} des rayures.|Écoute bien {w} : un {t} sain ronronne doucement.|"
    "Colle une étiquette sur le {t} {p} pour le retrouver.|Les petites pièces du {t} vont dans une boîte {p}.|Le vieux cuir d'un {t} aime un peu de graisse {w}.",
    "es": "Limpia el {t} {w} con un paño húmedo y déjalo secar {p}.|Casi todos los daños de un {t} ocurren {w}, porque nadie lo mira.|Entre dos personas se levanta bien el {t} cuando está vacío {p}.|"
    "Si el {t} todavía se mueve {w}, basta una gota de aceite.|Un buen {t} cuesta unos {n} euros y dura {m} años.|Guarda el {t} {p}, donde no lleguen los niños.|Mi abuelo reparaba su {t} {w} con mucha paciencia.|"
    "Primero mira si se han aflojado los tornillos del {t} {p}.|Se oye un clic suave cuando el {t} encaja {w}.|No dejes nunca el {t} {p} más de {m} días.|El color del {t} se apaga {w}, y eso es normal.|"
    "Pregunta en el pueblo, siempre hay alguien con un {t} de sobra {p}.|Se tarda {m} minutos en desmontar el {t} {w}.|El papel alrededor del {t} aleja la humedad {p}.|Hay quien usa vinagre para el {t} {w}, y quien prefiere jabón tibio.|"
    "Lo importante es que pase el aire por debajo del {t} {p}.|En cuanto el {t} se caliente {w}, para y espera un poco.|Una capa fina de cera protege el {t} {p} de los arañazos.|Escucha bien {w}: un {t} sano suena parejo.|"
    "Pega una etiqueta en el {t} {p} para encontrarlo luego.|Las piezas pequeñas del {t} van en una lata {p}.|Al cuero viejo de un {t} le gusta un poco de grasa {w}.",
}
LANGUAGES = tuple(QUESTIONS)


def filled(pattern: str, language: str, dice: random.Random) -> str:
    return pattern.format(
        t=dice.choice(THINGS[language].split("|")),
        p=dice.choice(PLACES[language].split("|")),
        w=dice.choice(TIMES[language].split("|")),
        n=dice.randrange(12, 480),
        m=dice.randrange(3, 95),
    )


def question(language: str, dice: random.Random) -> str:
    return filled(dice.choice(QUESTIONS[language].split("|")), language, dice)


def answer(language: str, dice: random.Random, few: int = 3, many: int = 5) -> str:
    patterns = dice.sample(ANSWERS[language].split("|"), dice.randint(few, many))
    return " ".join(filled(pattern, language, dice) for pattern in patterns)


def clean_row(language: str, dice: random.Random) -> Row:
    return {"instruction": question(language, dice), "input": "", "output": answer(language, dice)}


def clean_rows(count: int, seed: int, languages: tuple[str, ...] = LANGUAGES) -> list[Row]:
    """Rows of which no two ask the same: `count` up to a few thousand."""
    dice = random.Random(seed)
    rows: list[Row] = []
    asked: set[str] = set()
    while len(rows) < count:
        row = clean_row(languages[len(rows) % len(languages)], dice)
        if row["instruction"] not in asked:
            asked.add(row["instruction"])
            rows.append(row)
    return rows
