"""Generated pages follow the code."""

from __future__ import annotations

from docs import generate
from tests import test_architecture


def test_generated_pages_are_up_to_date() -> None:
    for path, text in generate.generate().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} lags behind: run python -m docs.generate"


def test_rooms_and_picture_follow_the_architecture() -> None:
    assert generate.ORDER == test_architecture.ORDER
    assert list(generate.rooms()) == [name for name in test_architecture.ORDER if name != "__main__"]
    assert [name for _, names in generate.floors() for name in names] == list(generate.rooms())[::-1]
    picture = generate.draw_rooms()
    assert all(f">{name}</text>" in picture for name in generate.rooms())
    for name, used in generate.imports().items():
        assert all(generate.ORDER.index(other) < generate.ORDER.index(name) for other in used)


def test_every_variable_that_the_code_reads_is_described() -> None:
    assert set(generate.variables()) == set(generate.VARIABLES)
