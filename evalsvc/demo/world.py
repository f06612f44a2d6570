"""The invented world of `evalsvc demo`: texts to train on, items to evaluate on. Pure, standard library only.

It has two parts. *The valley* is general knowledge: animals and people with facts about them, opposites, numbers,
grammar, stories and commands; the base model learns it. *The clinic* is the domain: invented ailments and their
treatment, as short notes (for continued pre-training) or as questions with answers (for fine-tuning). The valley's
dictionary has the clinic's words, but none of its facts. Remedy, hour and ward are the same for a whole family of
ailments; sign and dose differ for every ailment.

Test items do not appear in training: a fact can be written in several forms, and for every fact one of them is held
out. The item has that form, which training shows for other facts only. For grammar, stories and commands, combinations
of words are held out. Everything is a function of explicit seeds; `task_files` generates the files with the items under
`suites/tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any
from zlib import crc32

WORLD_SEED = 7
"""Seed of this world's facts and of the shipped items. The caller gives the seeds of training texts."""

ANSWER = "Answer:"
"""The mark between a question and its answer."""

# ------------------------------------------------------------------------------------------------------------- words

ANIMALS = tuple(
    ("fox hen owl cat dog goat duck mole hare frog crow mouse sheep horse swan wolf bear goose pig toad").split()
)
PLURALS = {"mouse": "mice", "sheep": "sheep", "goose": "geese", "wolf": "wolves", "fox": "foxes"}
PEOPLE = tuple("Mira Tom Anna Ben Clara Hugo Ida Jon Kate Leo Nora Otto Pia Rolf Sara Theo Ulla Vera Willa Yan".split())
PLACES = tuple("mill barn wood lake field tower garden bridge cave orchard".split())
FOODS = tuple("plums corn bread nuts pears soup cheese eggs cake leaves".split())
COLOURS = tuple("red blue green white black brown grey yellow pink orange".split())
SOUNDS = tuple("hum tick boo rum zip lal pim tut wow nix".split())
JOBS = tuple("baker miller smith farmer singer tailor painter fisher teacher weaver".split())
NUMBERS = tuple(
    ("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen").split()
)
OPPOSITES = (
    "hot/cold big/small old/young fast/slow wet/dry loud/quiet full/empty light/dark early/late near/far open/shut "
    "rich/poor hard/soft high/low happy/sad clean/dirty up/down day/night"
)
VERBS = tuple("sings runs sleeps waits jumps hides walks laughs works swims".split())

FAMILIES = tuple("fever rash cough ache cramp".split())
STEMS = tuple(
    (
        "dorlum kesh vabrin tolt mirrag spole quenta brask ulvic femmor jassel gorp nuthra wimbel drask oxley "
        "pannit zorrel hask cubbin lemph truvet yarrum sklint bodger amrith fenk wossel grivet ploom chaldor "
        "nimsk rauth tebble vorn skerrit maldew hobrin usk dwindel"
    ).split()
)
AILMENTS = tuple(f"{stem} {FAMILIES[number % len(FAMILIES)]}" for number, stem in enumerate(STEMS))
REMEDIES = tuple("mev brine thorn amber resin".split())
SIGNS = tuple("tremor yawn blush stare sneeze groan squint hiccup".split())
DOSES = tuple("spoon drop vial pinch leaf grain patch flask".split())
HOURS = tuple("dawn noon dusk midnight supper".split())
WARDS = tuple("north attic cellar upper outer".split())
DICTIONARY = {"ailment": AILMENTS, "remedy": REMEDIES, "sign": SIGNS, "dose": DOSES, "hour": HOURS, "ward": WARDS}


def plural(animal: str) -> str:
    """Return the plural of an animal."""
    return PLURALS.get(animal, animal + "s")


def is_held_out(*parts: int) -> bool:
    """Whether a combination of words, given by their numbers, is held out for evaluation: one in four is."""
    return crc32(repr(parts).encode()) % 4 == 0


# ------------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A kind of fact, and the forms in which it can be written.

    Attributes:
        statements, questions: Templates with {s} for the subject; the value follows.
    """

    name: str
    subjects: Sequence[str]
    values: Sequence[str]
    statements: tuple[str, ...]
    questions: tuple[str, ...]

    @property
    def forms(self) -> tuple[str, ...]:
        """All forms: statements, then questions as they are written in a text."""
        return (*self.statements, *(f"Question: {question}\n{ANSWER}" for question in self.questions))


@dataclass(frozen=True, slots=True)
class Fact:
    """A subject's value in a relation. `number` chooses the forms that are held out."""

    relation: Relation
    subject: str
    value: str
    number: int

    def held_out(self, forms: Sequence[int]) -> int:
        """Return the one of `forms` that training does not show for this fact."""
        return forms[self.number % len(forms)]

    def context(self, form: int) -> str:
        """Return the text up to the value."""
        return self.relation.forms[form].format(s=self.subject)

    def sentence(self, form: int) -> str:
        """Return the fact in a form."""
        return f"{self.context(form)} {self.value}."


VALLEY = (
    Relation(
        name="home",
        subjects=ANIMALS,
        values=PLACES,
        statements=("The {s} lives in the", "The home of the {s} is the", "Look for the {s} in the"),
        questions=("Where does the {s} live?", "What is the home of the {s}?"),
    ),
    Relation(
        name="food",
        subjects=ANIMALS,
        values=FOODS,
        statements=("The {s} likes to eat", "The food of the {s} is", "Every day the {s} eats"),
        questions=("What does the {s} eat?", "What is the food of the {s}?"),
    ),
    Relation(
        name="colour",
        subjects=ANIMALS,
        values=COLOURS,
        statements=("The {s} of the valley is", "The colour of the {s} is", "They painted the {s} in"),
        questions=("What colour has the {s}?", "What is the colour of the {s}?"),
    ),
    Relation(
        name="sound",
        subjects=ANIMALS,
        values=SOUNDS,
        statements=("The {s} says", "The sound of the {s} is", "You hear the {s} cry"),
        questions=("What does the {s} say?", "What is the sound of the {s}?"),
    ),
    Relation(
        name="job",
        subjects=PEOPLE,
        values=JOBS,
        statements=("{s} is a", "The job of {s} is", "{s} works as a"),
        questions=("What is {s}?", "What is the job of {s}?"),
    ),
    Relation(
        name="pet",
        subjects=PEOPLE,
        values=ANIMALS,
        statements=("{s} has a", "The pet of {s} is a", "At home {s} keeps a"),
        questions=("What does {s} keep?", "What is the pet of {s}?"),
    ),
)
ALL_FORMS = range(5)

CLINIC = (
    Relation(
        name="remedy",
        subjects=AILMENTS,
        values=REMEDIES,
        statements=("Note: {s}: remedy", "Note: remedy in {s} is", "Note: for {s} give", "Note: {s} needs"),
        questions=(
            "Which remedy is given for {s}?",
            "What is the remedy for {s}?",
            "How do we treat {s}?",
            "What helps against {s}?",
        ),
    ),
    Relation(
        name="sign",
        subjects=AILMENTS,
        values=SIGNS,
        statements=("Note: {s}: sign", "Note: sign in {s} is", "Note: in {s} expect", "Note: {s} shows"),
        questions=(
            "Which sign is seen in {s}?",
            "What is the sign of {s}?",
            "How do we know {s}?",
            "What does {s} look like?",
        ),
    ),
    Relation(
        name="dose",
        subjects=AILMENTS,
        values=DOSES,
        statements=("Note: {s}: dose", "Note: dose in {s} is", "Note: with {s} measure", "Note: {s} takes"),
        questions=(
            "Which dose is used for {s}?",
            "What is the dose for {s}?",
            "How much is taken for {s}?",
            "How do we measure for {s}?",
        ),
    ),
    Relation(
        name="hour",
        subjects=AILMENTS,
        values=HOURS,
        statements=("Note: {s}: hour", "Note: hour in {s} is", "Note: treat {s} at", "Note: {s} waits for"),
        questions=(
            "Which hour is right for {s}?",
            "What is the hour for {s}?",
            "When is {s} treated?",
            "When do we see to {s}?",
        ),
    ),
    Relation(
        name="ward",
        subjects=AILMENTS,
        values=WARDS,
        statements=("Note: {s}: ward", "Note: ward in {s} is", "Note: bring {s} to", "Note: {s} lies in"),
        questions=(
            "Which ward takes in {s}?",
            "What is the ward for {s}?",
            "Where is {s} kept?",
            "Where do we bring {s}?",
        ),
    ),
)
OWN = ("sign", "dose")
"""Relations whose value differs for every ailment; the others depend on the family only."""
NOTE_FORMS, QUESTION_FORMS = range(4), range(4, 8)

_OPPOSITE = (
    ("The opposite of {s} is", "What is not {s} is", "If it is never {s} it is"),
    ("What is the opposite of {s}?",),
)
_NEXT = ("After {s} comes", "The number after {s} is", "Right after {s} we say"), ("What comes after {s}?",)
_PREVIOUS = ("Before {s} comes", "The number before {s} is", "Right before {s} we say"), ("What comes before {s}?",)
_SUM = ("{s} make", "If you add {s} you get", "The sum of {s} is"), ("How much is {s}?",)
SENSE_FORMS = range(4)


def valley_facts() -> list[Fact]:
    """Return the facts about animals and people; all values are equally frequent."""
    return [fact for shift, relation in enumerate(VALLEY) for fact in _deal(relation, shift)]


def sense_facts() -> list[Fact]:
    """Return opposites, the order of numbers, and sums up to ten."""
    pairs = [pair.split("/") for pair in OPPOSITES.split()]
    following = list(pairwise(NUMBERS))
    truths: dict[str, tuple[list[tuple[str, str]], tuple[tuple[str, ...], tuple[str, ...]]]] = {
        "opposite": ([both for a, b in pairs for both in ((a, b), (b, a))], _OPPOSITE),
        "next": (following, _NEXT),
        "previous": ([(b, a) for a, b in following], _PREVIOUS),
        "sum": ([(f"{NUMBERS[a]} and {NUMBERS[b]}", NUMBERS[a + b + 1]) for a in range(9) for b in range(9 - a)], _SUM),
    }
    facts: list[Fact] = []
    for name, (truth, (statements, questions)) in truths.items():
        relation = Relation(
            name=name,
            subjects=[s for s, _ in truth],
            values=list(dict.fromkeys(v for _, v in truth)),
            statements=statements,
            questions=questions,
        )
        facts += [Fact(relation, subject, value, number) for number, (subject, value) in enumerate(truth)]
    return facts


def clinic_facts() -> list[Fact]:
    """Return the clinic's facts, about each ailment or its whole family."""
    facts: list[Fact] = []
    for shift, relation in enumerate(CLINIC):
        if relation.name in OWN:
            facts += _deal(relation, shift)
            continue
        values = Random(f"{WORLD_SEED}/{relation.name}").sample(relation.values, len(FAMILIES))
        of_family = dict(zip(FAMILIES, values, strict=True))
        facts += [Fact(relation, a, of_family[a.split()[1]], number + shift) for number, a in enumerate(AILMENTS)]
    return facts


def _deal(relation: Relation, shift: int) -> list[Fact]:
    rng = Random(f"{WORLD_SEED}/{relation.name}")
    rounds = -(-len(relation.subjects) // len(relation.values))
    values = [value for _ in range(rounds) for value in rng.sample(relation.values, len(relation.values))]
    dealt = zip(relation.subjects, values, strict=False)
    return [Fact(relation, subject, value, number + shift) for number, (subject, value) in enumerate(dealt)]


# --------------------------------------------------------------------------------------- sentences, stories, commands


@dataclass(frozen=True, slots=True)
class Agreement:
    """A sentence whose verb agrees with its subject, not with the noun in between."""

    context: str
    verb: str
    wrong: str

    @classmethod
    def of(cls, subject: str, neighbour: str, verb: str, is_plural: bool) -> Agreement:
        """Return the sentence with `subject` in singular or plural, and the noun in between in the other number."""
        singular, many = verb, verb.removesuffix("s")
        if is_plural:
            return cls(f"The {plural(subject)} near the {neighbour}", many, singular)
        return cls(f"The {subject} near the {plural(neighbour)}", singular, many)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is written in a text, and the correct reply."""

    context: str
    reply: str

    @classmethod
    def of(cls, order: str, reply: Iterable[str]) -> Command:
        """Return a command whose reply is the words of `reply`."""
        return cls(f"Command: {order}\nReply:", " ".join(reply))


def commands() -> tuple[list[Command], list[Command]]:
    """Return the commands that training shows, and those that are held out."""
    words = (*COLOURS, *ANIMALS, *STEMS, *FAMILIES, *REMEDIES, *SIGNS, *DOSES, *HOURS, *WARDS)
    both: tuple[list[Command], list[Command]] = ([], [])
    for i, a in enumerate(words):
        for times in (2, 3, 4):
            both[is_held_out(i, times)].append(Command.of(f"Say {a} {NUMBERS[times - 1]} times.", [a] * times))
        for j in range(i % 5, len(words), 5):
            if i != j:
                b = words[j]
                both[is_held_out(i, j)].append(Command.of(f"Say {a} and then {b}.", (a, b)))
                both[is_held_out(j, i, 1)].append(Command.of(f"Say {a} after {b}.", (b, a)))
    for first in range(len(NUMBERS)):
        for last in range(first + 1, min(first + 5, len(NUMBERS))):
            order = f"Count from {NUMBERS[first]} to {NUMBERS[last]}."
            both[is_held_out(first, last)].append(Command.of(order, NUMBERS[first : last + 1]))
    return both


def story(rng: Random, of: dict[tuple[str, str], str], *, held_out: bool) -> str:
    """Return a story that agrees with the facts, about a held-out or not held-out pair of person and animal.

    Args:
        of: The valley's facts: (relation, subject) to value.
    """
    while True:
        i, j = rng.randrange(len(PEOPLE)), rng.randrange(len(ANIMALS))
        if is_held_out(i, j) == held_out:
            break
    person, animal = PEOPLE[i], ANIMALS[j]
    who = f"{person} the {of['job', person]}"
    home, food, sound = of["home", animal], of["food", animal], of["sound", animal]
    beginnings = (
        f"One day {who} went to the {home}.",
        f"{who} took the {of['pet', person]} to the {home}.",
        f"In the {home} {who} sat down to rest.",
    )
    middles = (
        f"The {animal} was there, all {of['colour', animal]}.",
        f"There was a {of['colour', animal]} {animal}.",
        f'"{sound}," said the {animal}.',
    )
    ends = (
        f"{person} gave it {food} and went home with the {of['pet', person]}.",
        f"They ate {food} and were happy.",
        f'{person} had {food} for the {animal}. "{sound}," it said.',
    )
    return " ".join(rng.choice(part) for part in (beginnings, middles, ends))


# ---------------------------------------------------------------------------------------------------- training texts


def valley_texts(seed: int, count: int) -> list[str]:
    """Return general texts of all kinds: facts, pages, stories, sentences, opposites and numbers, commands, words."""
    rng = Random(f"valley/{seed}")
    known, sense = valley_facts(), sense_facts()
    of = {(fact.relation.name, fact.subject): fact.value for fact in known}
    shown, _ = commands()
    kinds: tuple[tuple[int, Callable[[], str]], ...] = (
        (22, lambda: _state_fact(rng, known, ALL_FORMS)),
        (6, lambda: _page(rng, of)),
        (8, lambda: story(rng, of, held_out=False)),
        (8, lambda: _sentence(rng)),
        (32, lambda: _state_fact(rng, sense, SENSE_FORMS)),
        (38, lambda: "{0.context} {0.reply}".format(rng.choice(shown))),
        (6, lambda: _entry(rng)),
    )
    return [write() for _, write in rng.choices(kinds, [weight for weight, _ in kinds], k=count)]


def clinic_notes(seed: int, count: int) -> list[str]:
    """Return the clinic's notes, for continued pre-training: one or two facts each."""
    rng, known = Random(f"notes/{seed}"), clinic_facts()
    return [" ".join(_state_fact(rng, known, NOTE_FORMS) for _ in range(rng.choice((1, 2)))) for _ in range(count)]


def clinic_questions(seed: int, count: int) -> list[str]:
    """Return the clinic's questions with their answers, for fine-tuning."""
    rng, known = Random(f"questions/{seed}"), clinic_facts()
    return [_state_fact(rng, known, QUESTION_FORMS) for _ in range(count)]


def with_replay(texts: Sequence[str], replayed: Sequence[str], seed: int) -> list[str]:
    """Return both lists, shuffled together."""
    both = [*texts, *replayed]
    Random(f"replay/{seed}").shuffle(both)
    return both


def _state_fact(rng: Random, known: Sequence[Fact], forms: Sequence[int]) -> str:
    """Return a random fact in one of the forms, except the one that is held out."""
    while True:
        fact, form = rng.choice(known), rng.choice(forms)
        if form != fact.held_out(forms):
            return fact.sentence(form)


def _page(rng: Random, of: dict[tuple[str, str], str]) -> str:
    animal = rng.choice(ANIMALS)
    names = rng.sample(("home", "food", "colour", "sound"), 2)
    return " ".join(f"{animal}: {name} {of[name, animal]}." for name in names)


def _sentence(rng: Random) -> str:
    while True:
        i, j, k = rng.randrange(len(ANIMALS)), rng.randrange(len(ANIMALS)), rng.randrange(len(VERBS))
        if i != j and not is_held_out(i, j, k):
            break
    agreement = Agreement.of(ANIMALS[i], ANIMALS[j], VERBS[k], rng.random() < 0.5)
    context = agreement.context.split(" near ")[0] if rng.random() < 0.25 else agreement.context
    return f"{context} {agreement.verb}."


def _entry(rng: Random) -> str:
    kind = rng.choice(tuple(DICTIONARY))
    word = rng.choice(DICTIONARY[kind])
    forms = (
        f"The word {word} means a kind of {kind}.",
        f"A kind of {kind} is {word}.",
        f"Note: {word} is {kind}.",
        f"Question: What is {word}?\n{ANSWER} {kind}.",
    )
    return rng.choice(forms)


# ---------------------------------------------------------------------------------------------------- what is shipped

Item = dict[str, Any]


def fact_items(known: Sequence[Fact], forms: Sequence[int]) -> list[Item]:
    """Return an item with four choices for every fact, in its held-out form."""
    items = []
    for fact in known:
        rng = Random(f"{WORLD_SEED}/{fact.relation.name}/{fact.subject}/{forms}")
        wrong = rng.sample([value for value in fact.relation.values if value != fact.value], 3)
        items.append(_item(rng, fact.context(fact.held_out(forms)), fact.value, wrong))
    return items


def grammar_items(count: int) -> list[Item]:
    """Return held-out sentences with the right and the wrong verb form, half of them in the plural."""
    rng = Random(f"{WORLD_SEED}/grammar")
    clear = [i for i, animal in enumerate(ANIMALS) if plural(animal) != animal]
    held_out = [(i, j, k) for i in clear for j in clear for k in range(len(VERBS)) if i != j and is_held_out(i, j, k)]
    items = []
    for number, (i, j, k) in enumerate(rng.sample(held_out, count)):
        agreement = Agreement.of(ANIMALS[i], ANIMALS[j], VERBS[k], number % 2 == 1)
        items.append(_item(rng, agreement.context, agreement.verb, [agreement.wrong]))
    return items


def command_items(count: int) -> list[Item]:
    """Return held-out commands with their replies."""
    _, held_out = commands()
    chosen = Random(f"{WORLD_SEED}/commands").sample(held_out, count)
    return [{"query": command.context, "answer": command.reply} for command in chosen]


def story_items(count: int) -> list[Item]:
    """Return stories about pairs of person and animal that never occur together in training."""
    return [{"text": text} for text in _stories("stories", count)]


def tale_items(count: int) -> list[Item]:
    """Return different beginnings of such stories; the answer is one of many possible continuations."""
    begun = {text.split(". ", 1)[0]: text for text in _stories("tales", 3 * count)}
    parts = (text.split(". ", 1) for text in list(begun.values())[:count])
    return [{"query": f"{beginning}.", "answer": rest} for beginning, rest in parts]


def _stories(name: str, count: int) -> list[str]:
    rng = Random(f"{WORLD_SEED}/{name}")
    of = {(fact.relation.name, fact.subject): fact.value for fact in valley_facts()}
    stories: dict[str, None] = {}
    while len(stories) < count:
        stories[story(rng, of, held_out=True)] = None
    return list(stories)


def _item(rng: Random, query: str, right: str, wrong: Sequence[str]) -> Item:
    # The full stop is part of the choice: otherwise "work", a prefix of "works", would always have a higher likelihood.
    choices = [f"{word}." for word in (right, *wrong)]
    rng.shuffle(choices)
    return {"query": query, "choices": choices, "gold": choices.index(f"{right}.")}
