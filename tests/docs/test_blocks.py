"""Every code block of README and docs does what it says: commands run, files load, examples parse."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import yaml

from docs import outputs
from evalsvc import cli
from evalsvc.gating.policy import Policy, Waiver
from evalsvc.harness import suites
from evalsvc.harness.suites import Suite
from tests.conftest import ROOT
from tests.support import tiny
from tests.support.commands import Run

pytestmark = pytest.mark.slow

PAGES = ROOT / "docs" / "pages"
DOCUMENTS = [ROOT / "README.md", ROOT / "suites" / "README.md", *sorted(PAGES.rglob("*.md"))]

PARSED_ONLY = {
    "python3 -m venv": "CI runs README's own two lines in a fresh clone",
    "evalsvc dashboard": "serves until it is stopped; the dashboard's tests run it",
    "RAY_ADDRESS": "needs a Ray cluster",
    "--address": "needs a Ray cluster",
    "/models/": "needs a Ray cluster",
    "--recipe": "needs a recipe trained with three seeds; the tests of the gate run it",
    "--shots": "needs a task with enough items for few-shot examples; the tests of scoring run this",
    "evalsvc-demo/": "needs the demo's models, which take minutes; the demo's tests run these",
}
"""Text of a line that is parsed but not run, and why."""


FEW_ITEMS = 24


class Block(NamedTuple):
    """A code block, and the file that the text before it says it is."""

    document: Path
    language: str
    text: str
    file: str | None

    def __str__(self) -> str:
        first = self.text.strip().splitlines()[0][:40]
        return f"{self.document.relative_to(ROOT)}:{self.language}:{first}"


def read_blocks(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^( *)```(\w+)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        indent, language, body = match.groups()
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        paragraph = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        named = re.search(r"as\s+`([\w./-]+)`", paragraph)
        yield Block(document, language, body, named[1] if named else None)


BLOCKS = [block for document in DOCUMENTS for block in read_blocks(document)]


def commands_of(text: str) -> list[str]:
    """Return the command lines of a shell block, without comments."""
    return [line.split("   #")[0].strip() for line in text.splitlines() if line.strip()]


def check_options(line: str) -> None:
    """Hold a line to the command that it names: the command and all of its options exist."""
    words = shlex.split(line)
    command: Any = typer.main.get_command(cli.app)
    position = words.index("evalsvc") + 1
    while hasattr(command, "commands"):
        assert words[position] in command.commands, line
        command, position = command.commands[words[position]], position + 1
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.split("=")[0] for word in words[position:] if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{line}: no option {used - known}"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks_parse(block: Block) -> None:
    if block.language == "sh" or (block.language == "text" and "cli.md" in str(block.document)):
        for line in commands_of(block.text):
            if line.startswith("evalsvc ") and "[OPTIONS]" not in line and "&&" not in line:
                check_options(line)
    elif block.language == "yaml":
        check_yaml(yaml.safe_load(block.text))
    elif block.language == "json":
        texts = block.text.strip().splitlines() if "]]" not in block.text else [block.text]
        for text in texts:
            json.loads(text)
    elif block.language == "python":
        compile(block.text, str(block), "exec")
    else:
        assert block.language == "text", block


def check_yaml(content: Any) -> None:
    """Hold a YAML block to what it is: a policy, a suite, a task, a CI job."""
    if isinstance(content, list):
        content = {"jobs": {"job": {"steps": content}}}
    if "version" in content:
        for waiver in Policy.model_validate(content).waivers:
            Waiver.model_validate(waiver)
    elif "role" in content:
        Suite.model_validate(content)
    elif "jobs" in content:
        inputs = yaml.safe_load((ROOT / ".github/actions/gate/action.yml").read_text(encoding="utf-8"))["inputs"]
        for step in (step for job in content["jobs"].values() for step in job["steps"]):
            if step["uses"].startswith("./"):
                assert (ROOT / step["uses"] / "action.yml").is_file()
                assert set(step["with"]) <= set(inputs)
    elif "evalsvc-gate" in content:
        shipped = (ROOT / ".github/actions/gate/gitlab.yml").read_text(encoding="utf-8")
        assert content == yaml.safe_load(shipped)
    else:
        assert {"task", "output_type"} <= set(content)


# --------------------------------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages see it: models, suites, a policy, results of others."""
    folder = tmp_path_factory.mktemp("home")
    tiny.save_all(folder / "models")
    shutil.copytree(folder / "models" / "lora", folder / "runs" / "lora" / "checkpoint-400")
    shutil.copytree(ROOT / "suites", folder / "suites")
    for path in (folder / "suites" / "tasks" / "data").iterdir():  # a few items say as much here as all
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:FEW_ITEMS]), encoding="utf-8")
    (folder / "policy.yaml").write_text(
        "version: 1\nlearning: {suites: [clinic]}\nretention: [{suite: valley, margin: 0.2}]\n", encoding="utf-8"
    )
    write_results(folder)
    return folder


def write_results(folder: Path) -> None:
    """Write lm-eval's files, a table of items and a matrix, as `how-to/import.md` names them."""
    for arm, right, hour in (("base", 14, 12), ("lora", 11, 13)):
        scores = [1.0 if i < right else 0.0 for i in range(20)]
        results = {"results": {"copa": {"acc,none": right / 20}}}
        (folder / arm).mkdir(exist_ok=True)
        (folder / arm / "results.json").write_text(json.dumps(results), encoding="utf-8")
        samples = [
            {"doc_id": i, "doc": {"q": i}, "arguments": [[f"q{i}", "a"]], "filter": "none", "acc": score}
            for i, score in enumerate(scores)
        ]
        lines = "\n".join(json.dumps(sample) for sample in samples)
        (folder / arm / f"samples_copa_2025-01-31T{hour}.jsonl").write_text(lines + "\n", encoding="utf-8")
    rows = [(arm, i, int(i % step != 0)) for arm, step in (("pretrained", 3), ("tuned", 4)) for i in range(24)]
    columns = dict(zip(("system", "id", "correct"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "items.parquet")
    matrix = next(block.text for block in BLOCKS if "accuracy" not in block.text and '"scores"' in block.text)
    (folder / "matrix.json").write_text(matrix, encoding="utf-8")


def run_line(evalsvc: Run, line: str, codes: tuple[int, ...] = (0,)) -> str:
    words = shlex.split(line)[1:]
    if words[0] == "submit" or "--evaluate" in words:
        words += [*(() if "--workers" in words else ("--workers", "0")), "--device", "cpu", "--quiet"]
    done = evalsvc(*words)
    assert done.code in codes, f"{line}: exit code {done.code}: {done.err[-400:]}"
    return done.out


def run_page(name: str, evalsvc: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a page's blocks in order in this folder, files first; return how many commands ran."""
    ran = 0
    for block in read_blocks(PAGES / name if not name.startswith("README") else ROOT / name):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        for line in commands_of(block.text) if block.language == "sh" else []:
            if any(text in line for text in PARSED_ONLY):
                continue
            if line.startswith("export "):
                monkeypatch.setenv(*line.removeprefix("export ").split("=", 1))
                continue
            run_line(evalsvc, line, (0, 3, 4) if " gate " in line else (0,))
            ran += 1
    return ran


@pytest.fixture
def inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setattr(suites, "shared_dir", home.joinpath)
    return home


def test_own_suite(inside: Path, evalsvc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_page("how-to/own-suite.md", evalsvc, monkeypatch) == 3


def test_own_checkpoints_and_gate(inside: Path, evalsvc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_page("README.md", evalsvc, monkeypatch) >= 3
    assert run_page("how-to/own-checkpoints.md", evalsvc, monkeypatch) >= 8
    assert run_page("how-to/gate-in-ci.md", evalsvc, monkeypatch) == 5
    assert run_page("how-to/cluster.md", evalsvc, monkeypatch) == 2
    check_outputs(evalsvc)


def test_python(inside: Path) -> None:
    """The page's blocks run like the cells of a notebook, and what they leave shows as tables."""
    cells: dict[str, Any] = {}
    for block in read_blocks(PAGES / "how-to" / "python.md"):
        exec(compile(block.text, str(block), "exec"), cells)  # the page's own code
    for name in ("runs", "frontier", "comparison", "curve", "plan", "decision", "advice"):
        assert "<table>" in cells[name]._repr_html_()


def test_import(inside: Path, evalsvc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSVC_DB", "imported.duckdb")
    assert run_page("how-to/import.md", evalsvc, monkeypatch) == 7
    for line, name in (
        (
            "evalsvc import lm-eval lora/results.json --method lora --name again --suite nlp --role general --json",
            "import",
        ),
        ("evalsvc import matrix matrix.json --json", "import-matrix"),
        ("evalsvc continual --json", "continual"),
    ):
        validate(json.loads(run_line(evalsvc, line)), name)


def test_first_frontier(inside: Path, evalsvc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a finished demo lies in the checkout, as in CI, the page runs on a copy of its store."""
    store = ROOT / "evalsvc-demo" / "evalsvc.duckdb"
    if not store.is_file():
        pytest.skip("needs a finished demo: run evalsvc demo in the checkout")
    (inside / "evalsvc-demo").mkdir(exist_ok=True)
    shutil.copy(store, inside / "evalsvc-demo" / "evalsvc.duckdb")
    monkeypatch.delitem(PARSED_ONLY, "evalsvc-demo/")
    assert run_page("how-to/first-frontier.md", evalsvc, monkeypatch) == 7


# ---------------------------------------------------------------------------------------------------------- schemas

JSON_COMMANDS = {
    "submit": "evalsvc submit runs/lora --base models/base --suite valley --json",
    "status": "evalsvc status --json",
    "results": "evalsvc results --json",
    "compare": "evalsvc compare lora@400 --json",
    "frontier": "evalsvc frontier --base base --json",
    "trajectory": "evalsvc trajectory lora --json",
    "claims": "evalsvc claims --base base --json",
    "gate": "evalsvc gate lora@400 --policy policy.yaml --json",
    "gate-plan": "evalsvc gate lora@400 --policy policy.yaml --plan --json",
    "checkpoints-list": "evalsvc checkpoints list --json",
    "checkpoints-show": "evalsvc checkpoints show lora@400 --json",
    "checkpoints-compare": "evalsvc checkpoints compare lora@400 --json",
    "checkpoints-check": "evalsvc checkpoints check runs/lora --base models/base --json",
    "suites-list": "evalsvc suites list --json",
    "suites-show": "evalsvc suites show valley --json",
    "suites-check": "evalsvc suites check clinic --json",
    "doctor": "evalsvc doctor --json",
}


def close_objects(schema: Any) -> Any:
    """Return a schema that allows no further field, so that a new one cannot be forgotten here."""
    if isinstance(schema, list):
        return [close_objects(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close_objects(value) for key, value in schema.items()}
    return closed | {"additionalProperties": False} if "properties" in schema else closed


def validate(answer: Any, name: str) -> None:
    jsonschema.validate(answer, close_objects(outputs.schema_of(outputs.OUTPUTS[name])))


def check_outputs(evalsvc: Run) -> None:
    """Hold what each command prints to its schema."""
    for name, line in JSON_COMMANDS.items():
        validate(json.loads(run_line(evalsvc, line, (0, 1, 3, 4))), name)
    record = max(Path("evalsvc.duckdb.decisions").glob("*.json"), key=lambda path: path.stat().st_mtime)
    validate(json.loads(record.read_text(encoding="utf-8")), "decision")
    validate(json.loads(run_line(evalsvc, f"evalsvc verify {record} --json", (0, 5))), "verify")
    for suite, command in (("tales", "diversity lora@400"), ("valley-text", "drift --base base")):
        run_line(evalsvc, f"evalsvc submit runs/lora --base models/base --suite {suite}")
        validate(json.loads(run_line(evalsvc, f"evalsvc {command} --json")), command.split()[0])


def test_every_output_has_an_example() -> None:
    elsewhere = {"decision", "verify", "diversity", "drift", "import", "import-matrix", "continual"}
    assert set(outputs.OUTPUTS) == set(JSON_COMMANDS) | elsewhere
