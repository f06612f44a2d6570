"""What a file of text may contain, and what is said of one that lies: one line, at once."""

from __future__ import annotations

import gzip
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalsvc.errors import EvalsvcError, PolicyError, UsageError
from evalsvc.files import bounded, json_files
from evalsvc.files.json_files import read_json, read_json_or_lines, read_object
from evalsvc.files.yaml_files import read_yaml

DEEP = "[" * 100_000 + "]" * 100_000
BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)

Reader = Callable[[Path], Any]
SETTINGS: Reader = lambda path: read_object(path, UsageError)  # noqa: E731 - a reader like the others
POLICY: Reader = lambda path: read_yaml(path, "policy", PolicyError)  # noqa: E731


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (SETTINGS, "[1]", "contains a list, must be a JSON object"),
        (SETTINGS, '{"a": 1', "is not valid JSON (Expecting ',' delimiter"),
        (SETTINGS, DEEP, "is nested too deeply"),
        (SETTINGS, '{"a": ' + "[" * 300 + "]" * 300 + "}", "is nested too deeply, in more than 200 levels"),
        (SETTINGS, '{"a": ' + "9" * 5_000 + "}", "is not valid JSON (a whole number of 5,000 digits)"),
        (SETTINGS, '{"a": ' + "9" * 301 + "}", "a whole number of 301 digits"),
        (SETTINGS, b"\xff{}", "is not UTF-8 text (invalid start byte at byte 0)"),
        (read_json, DEEP, "is nested too deeply"),
        (read_json, b"\x1f\x8bnothing", "cannot be"),
        (read_json, gzip.compress(b"[" + b"1," * 99)[:-9], "cannot be"),
        (read_json_or_lines, '{"a": 1}\n{"a": \n', "line 2: is not valid JSON"),
        (read_json_or_lines, '{"a": 1}\n' + DEEP, "line 2: is nested too deeply"),
        (POLICY, "a: [", "not valid YAML at line 1"),
        (POLICY, "", "is empty, must be a mapping"),
        (POLICY, "- 1", "contains a list, must be a mapping"),
        (POLICY, f"a: {DEEP}", "is nested too deeply"),
        (POLICY, BILLION, "its aliases stand for over 100,000 values"),
        (POLICY, "a: &a\n  - *a\n", "line 1: contains itself"),
        (POLICY, "a: 1\nb: {c: 1, c: 2}\n", "line 2: key 'c' appears twice; keep one of them"),
        (POLICY, "until: 2027-02-30\n", "line 1: '2027-02-30': day is out of range for month"),
        (POLICY, "a: !!python/object/apply:os.system [echo]\n", "not valid YAML at line 1: could not determine"),
        (POLICY, b"\xff\xfe\xff", "not valid YAML"),
        (POLICY, "a: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_lies_is_told_in_one_line_at_once(
    tmp_path: Path, read: Reader, text: str | bytes, message: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    started = time.monotonic()
    with pytest.raises(EvalsvcError) as caught:
        read(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("read", [SETTINGS, read_json, read_json_or_lines, POLICY])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, read: Reader) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "pipe", "it is no regular file"),
        (Path("/dev/zero"), "it is no regular file"),
        (tmp_path, "it is a folder"),
        (tmp_path / "absent", "No such file"),
    ):
        with pytest.raises(EvalsvcError, match=reason):
            read(path)


def test_a_file_is_read_up_to_a_limit_packed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(["x" * 1_000]).encode()
    (tmp_path / "plain").write_bytes(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text))
    assert read_json(tmp_path / "plain") == read_json(tmp_path / "packed") == ["x" * 1_000]
    for name in ("plain", "packed"):
        with pytest.raises(UsageError, match=r"is larger than 0 MB, which is not read$"):
            bounded.read_bounded(tmp_path / name, "file", UsageError, 1_000)
        assert bounded.read_bounded(tmp_path / name, "file", UsageError, len(text)) == text


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """However large a file might be: where memory is limited, as in many containers, small ones are still read."""
    (tmp_path / "plain").write_text("[1]")
    (tmp_path / "packed").write_bytes(gzip.compress(b"[1]"))
    for name in ("plain", "packed"):
        tracemalloc.start()
        assert read_json(tmp_path / name) == [1]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10e6


def test_what_people_write_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1000000000000000019884624838656, "b": [NaN, 1e400]}')
    value = read_json(file)
    assert value["a"] == int(1e30)  # what a tokenizer without a window has as its length
    file.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert read_json_or_lines(file) == [{"a": 1}, {"a": 2}]
    file.write_text("base: &base {x: 1, y: [2]}\nmore: {<<: *base, x: 3}\nuntil: 2027-02-28\n")
    data = read_yaml(file, "policy", PolicyError)
    assert data["more"] == {"x": 3, "y": [2]}
    assert json_files.parse_object(b'{"a": {"b": 1}}', "x", UsageError) == {"a": {"b": 1}}
