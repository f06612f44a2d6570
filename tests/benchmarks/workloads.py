"""Benchmarks' prompts: how many tokens, and how much of them is shared, decides what an engine can save.

`fixed` shots are the same for every document, as where a task says `sampler: first_n`; `random` ones are drawn anew for
each, as lm-eval does by default.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evalsvc.records.digests import canonical
from evalsvc.records.plans import Request
from evalsvc.records.vocabulary import Kind
from tests.benchmarks.texts import Question, Texts

Pairs = list[tuple[str, str]]
"""(context, continuation) of one document."""

STOP = "est"
"""In one of a hundred tokens, so that answers end at different places, as real ones do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests as one benchmark asks them.

    Attributes:
        name: What people type.
        documents: Of each document, the numbers of its requests; between them the model chooses, if there are several.
        batch: The batch size at which HFLM is fastest on a CPU.
        target: Ratio that is to be reached.
        adapters: How many adapters are scored beside the base.
    """

    name: str
    kind: Kind
    requests: tuple[Request, ...]
    documents: tuple[tuple[int, ...], ...]
    batch: int
    target: float
    adapters: int = 0


def all_workloads(texts: Texts) -> list[Workload]:
    """Return the workloads of the benchmark."""
    return [
        choose("mmlu-19", mmlu(texts, 19), 1, 5.0),
        choose("mmlu-98", mmlu(texts, 98), 1, 6.5),
        choose("hellaswag-random", hellaswag(texts, 4, fixed=False), 1, 4.0),
        choose("hellaswag-fixed", hellaswag(texts, 4, fixed=True), 1, 10.0),
        choose("arc-random", arc(texts, 4, fixed=False), 1, 4.0),
        choose("arc-fixed", arc(texts, 4, fixed=True), 1, 13.0),
        choose("zero-shot", zero_shot(texts, 60), 8, 2.2),
        choose("lambada", [[(" ".join(w[:-1]), f" {w[-1]}")] for w in _words(texts.passages[:60])], 8, 1.15),
        rolling(texts, 4),
        generation("gsm8k-random", texts, 24, 1.4, fixed=False),
        generation("gsm8k-fixed", texts, 24, 5.0, fixed=True),
        replace(choose("adapters", mmlu(texts, 19), 1, 4.5), adapters=12),
    ]


def choose(name: str, documents: Sequence[Pairs], batch: int, target: float) -> Workload:
    """Make a workload of log-likelihoods."""
    requests: list[Request] = []
    numbers = []
    for pairs in documents:
        numbers.append(tuple(range(len(requests), len(requests) + len(pairs))))
        requests += [Request.of("loglikelihood", pair) for pair in pairs]
    return Workload(
        name=name, kind="loglikelihood", requests=tuple(requests), documents=tuple(numbers), batch=batch, target=target
    )


def rolling(texts: Texts, count: int) -> Workload:
    """Make whole texts, each of several windows."""
    requests = tuple(Request.of("loglikelihood_rolling", (text,)) for text in texts.prose[:count])
    return Workload(
        name="rolling",
        kind="loglikelihood_rolling",
        requests=requests,
        documents=tuple((n,) for n in range(count)),
        batch=1,
        target=0.98,
    )


def generation(
    name: str, texts: Texts, count: int, target: float, *, fixed: bool, limit: int = 128, shots: int = 5
) -> Workload:
    """Make sums to be worked out in words, after five that have been."""
    settings = canonical({"until": [STOP], "max_gen_toks": limit, "do_sample": False})
    done = [f"Question: {question}\nAnswer: {answer}" for question, answer in texts.sums]
    asked = [f"Question: {question}\nAnswer:" for question, _ in texts.sums[:count]]
    drawn = _shots(done[count:], shots, fixed)
    requests = tuple(
        Request.of("generate_until", ("\n\n".join([*drawn(n), text]), settings)) for n, text in enumerate(asked)
    )
    return Workload(
        name=name,
        kind="generate_until",
        requests=requests,
        documents=tuple((n,) for n in range(count)),
        batch=1,
        target=target,
    )


def mmlu(texts: Texts, count: int, subject: int = 0) -> list[Pairs]:
    """Return one subject: five fixed shots, four letters to choose from."""
    rng = random.Random(subject)
    questions = rng.sample(texts.science, count + 100)
    # MMLU's shots are a little longer than its questions.
    wanted = 1.18 * sum(len(_letters(question)) for question in questions) / len(questions)
    nearest = sorted(questions[count:], key=lambda question: abs(len(_letters(question)) - wanted))
    shots = [f"{_letters(question)} {rng.choice('ABCD')}" for question in nearest[:5]]
    topic = " ".join(rng.choice(texts.passages).split()[:2])
    opening = f"The following are multiple choice questions (with answers) about {topic} {subject}."
    contexts = ["\n\n".join([opening, *shots, _letters(question)]) for question in questions[:count]]
    return [[(context, f" {letter}") for letter in "ABCD"] for context in contexts]


def _letters(question: Question) -> str:
    choices = "".join(f"\n{letter}. {text}" for letter, text in zip("ABCD", question.choices, strict=False))
    return f"{question.query}{choices}\nAnswer:"


def hellaswag(texts: Texts, count: int, *, fixed: bool, shots: int = 10, seed: int = 0) -> list[Pairs]:
    """Return beginnings of passages, each with four endings to choose from."""
    passages = list(texts.passages)
    random.Random(seed).shuffle(passages)
    halves = [(" ".join(words[:-20]), " ".join(words[-20:])) for words in _words(passages)]
    drawn = _shots([f"{begin} {end}" for begin, end in halves[len(halves) // 2 :]], shots, fixed)
    found = []
    for number in range(count):
        own = number % (len(halves) // 2 - 4)
        context = "\n\n".join([*drawn(number), halves[own][0]])
        found.append([(context, f" {halves[own + other][1]}") for other in range(4)])
    return found


def arc(texts: Texts, count: int, *, fixed: bool, shots: int = 25) -> list[Pairs]:
    """Return science questions with four answers in words: of one-token answers HFLM shares the forward pass."""
    rng = random.Random(0)
    asked = [q for q in texts.science if min(len(choice.split()) for choice in q.choices) > 2][:count]
    done = [f"Question: {q.query}\nAnswer: {rng.choice(q.choices)}" for q in texts.science if q not in asked]
    drawn = _shots(done, shots, fixed)
    found = []
    for number, question in enumerate(asked):
        context = "\n\n".join([*drawn(number), f"Question: {question.query}\nAnswer:"])
        found.append([(context, f" {choice}") for choice in question.choices])
    return found


def zero_shot(texts: Texts, count: int) -> list[Pairs]:
    """Return questions of several kinds with their answers, without shots."""
    return [[(f"Question: {q.query}\nAnswer:", f" {choice}") for choice in q.choices] for q in texts.short[:count]]


def _words(texts: Sequence[str]) -> list[list[str]]:
    return [text.split() for text in texts]


def _shots(pool: Sequence[str], count: int, fixed: bool) -> Callable[[int], Sequence[str]]:
    """Return what gives a document's shots."""
    return lambda number: pool[:count] if fixed else random.Random(number).sample(pool, count)
