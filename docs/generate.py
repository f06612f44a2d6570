"""Write the pages and schemas that follow from the code: python -m docs.generate; with --check, fail if one lags."""

from __future__ import annotations

import ast
import html
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import evalsvc
from docs import outputs
from evalsvc import errors
from evalsvc.cli import app
from evalsvc.gating.policy import Policy, Waiver
from evalsvc.harness.suites import Suite

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "pages"
_ARCHITECTURE = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
ORDER, OWNERS = (
    ast.literal_eval(node.value)
    for node in _ARCHITECTURE.body
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in {"ORDER", "OWNERS"}
)
NOTE = "<!-- Written by `python -m docs.generate`; do not edit. -->\n"

VARIABLES = {
    "EVALSVC_DB": "The store's file, where `--db` is not given.",
    "EVALSVC_ADDRESS": "A Ray cluster's head (`http://head:8265`), where `--address` is not given.",
    "EVALSVC_CACHE": "Folder for what can be recomputed: data sets that `datasets` has prepared.",
    "EVALSVC_DEBUG": "Any value: internal errors print their traceback.",
    "GITHUB_STEP_SUMMARY": "Set by GitHub Actions: `gate` appends its Markdown report to this file.",
    "HF_DATASETS_OFFLINE": "`1`: data sets come from the cache only. `doctor` shows it.",
    "HF_HOME": "Where Hugging Face libraries keep their files. `doctor` shows it.",
    "HF_HUB_OFFLINE": "`1`: hub ids are looked up in the cache only. `doctor` shows it.",
    "LOCAL_RANK": "Set by torchrun; `doctor` warns where it is left over.",
    "OMP_NUM_THREADS": "Threads of one worker. `evalsvc demo` sets it to 1. `doctor` shows it.",
    "RAY_ADDRESS": "A running Ray cluster that scores; without it a run starts its own workers on this machine.",
    "RAY_AUTH_MODE": "`token` unless set: Ray refuses clients without the token.",
    "RAY_AUTH_TOKEN": "The token of the Ray cluster. Without a cluster, a new one is made for each run.",
    "RAY_AUTH_TOKEN_PATH": "A file with the token.",
    "RAY_USAGE_STATS_ENABLED": "`0` unless set: Ray reports nothing.",
}
"""What each environment variable is for; which there are is read from the code."""


def generate() -> dict[Path, str]:
    """Return every generated file and what must stand in it."""
    reference = PAGES / "reference"
    files = {
        reference / "cli.md": write_cli(),
        reference / "settings.md": write_settings(),
        reference / "json.md": write_json_page(),
        PAGES / "architecture.svg": draw_rooms(),
        PAGES / "rooms.md": write_rooms(),
    }
    for name, schema in schemas().items():
        files[reference / "schemas" / f"{name}.json"] = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
    return files


# ------------------------------------------------------------------------------------------------------ command line


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command's full name, and the command."""
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        if inner:
            yield from ((f"{name} {part}", inner[part]) for part in inner)
        else:
            yield name, command


def write_cli() -> str:
    """Return the reference of all commands."""
    lines = [NOTE, "# Command line\n"]
    lines.append(
        "Answers go to stdout, progress and notes to stderr. `--json` prints one object, described in\n"
        "[JSON outputs](json.md); what an exit code means is in\n"
        "[Exit codes, variables, cost cards](settings.md#exit-codes).\n"
    )
    for name, command in commands():
        lines += [f"## evalsvc {name}\n", f"{command.help}\n"]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join(_usage(p) for p in (*arguments, *(o for o in options if o.required)))
        lines += ["```text", f"evalsvc {name} {usage}".strip() + " [OPTIONS]", "```\n"]
        lines += ["| argument or option | value | default | meaning |", "|---|---|---|---|"]
        lines += [_option_row(p) for p in (*arguments, *options)]
        examples = re.sub(r"^Examples?:\s+", "", command.epilog or "").split("\n\n")
        lines += ["", "Example:" if len(examples) == 1 else "Examples:", "", "```text", *examples, "```", ""]
    return "\n".join(lines)


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return f"{parameter.opts[0]} {parameter.name.upper()}"
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _option_row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{parameter.name.upper()}`"
    else:
        name = ", ".join(f"`{option}`" for option in parameter.opts)
    shown = parameter.show_default
    if parameter.required:
        default = "required"
    elif isinstance(shown, str):
        default = shown
    elif getattr(parameter, "is_flag", False):
        default = "off"
    else:
        default = "none" if parameter.default in (None, ()) else f"`{parameter.default}`"
    meaning = parameter.help or ""
    if parameter.envvar:
        meaning += f" Also from `{parameter.envvar}`."
    value = "flag" if getattr(parameter, "is_flag", False) else _value(parameter)
    return " | ".join(["|", name, value, default, _cell(meaning), "|"]).replace("| | ", "| ", 1).replace(" | |", " |")


def _value(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    choices = getattr(annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return " or ".join(f"`{choice}`" for choice in choices)
    names = {"str": "text", "int": "whole number", "float": "number", "Path": "path"}
    found = [names[part] for part in re.findall(r"\b(str|int|float|Path)\b", str(annotation))]
    value = found[0] if found else "text"
    many = parameter.multiple or parameter.nargs == -1
    return f"{value}, repeatable" if many else value


def _cell(text: str) -> str:
    return html.escape(text.replace("|", "\\|"), quote=False)


# ---------------------------------------------------------------------------------------------------------- settings


def write_settings() -> str:
    """Return the page of exit codes, environment variables and the fields of a cost card."""
    lines = [NOTE, "# Exit codes, variables, cost cards\n", "## Exit codes\n", "| code | when |", "|---:|---|"]
    lines += [f"| {code} | {_cell(text)} |" for code, text in exit_codes()]
    lines += [
        "\nA crash never looks like a verdict, and nothing that was not evaluated exits with 0. The errors behind the",
        "codes, with what they are about:\n",
        "```text",
        *(line.rstrip() for line in inspect.cleandoc(str(errors.__doc__)).split("\n\n")[1].splitlines()),
        "```",
        "\n## Environment variables\n",
        "A flag comes first, then the variable, then the default.\n",
        "| variable | meaning |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {VARIABLES[name]} |" for name in variables()]
    lines += [
        "\n## Cost cards\n",
        "A checkpoint's folder may hold `evalsvc.json`, one JSON object that says what training cost. All fields may",
        "be left out; a field that is not known is never taken as zero. An unknown field is an error. Flags of",
        "`submit` win over the card; the card wins over what is read from `trainer_state.json`.\n",
        "| field | type | meaning |",
        "|---|---|---|",
    ]
    schema = outputs.schema_of(outputs.CostCard)
    for name, field in schema["properties"].items():
        lines.append(f"| `{name}` | {_type(field).removesuffix(' or null')} | {_cell(field.get('description', ''))} |")
    lines += [
        "\nThe callback `evalsvc.hooks.cost_card.CostCard` for transformers' `Trainer` writes the card into each",
        "checkpoint that it saves. For the schema see [cost-card.json](schemas/cost-card.json).",
    ]
    return "\n".join(lines) + "\n"


def exit_codes() -> list[tuple[int, str]]:
    """Return every exit code with its meaning."""
    doc = str(inspect.getdoc(evalsvc.cli))
    listed = re.search(r"Exit codes: (.*?)\.$", doc, re.DOTALL | re.MULTILINE)
    assert listed, "evalsvc.cli's docstring lists the exit codes"
    parts = " ".join(listed[1].split())
    return [(int(code), text) for code, text in re.findall(r"(\d) (.*?)(?:, (?=\d )|$)", parts)]


def variables() -> list[str]:
    """Return the environment variables that the code reads."""
    found: set[str] = set()
    for path in (ROOT / "evalsvc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"^(?:EVALSVC|RAY|HF|GITHUB|OMP|LOCAL)_[A-Z_]+$", node.value))
    return sorted(found - {"RAY_"})


# ------------------------------------------------------------------------------------------------------------- rooms


def rooms() -> dict[str, str]:
    """Return every room of the package with what it is, ground floor first."""
    listed = dict(re.findall(r"^    (\w+) +(.*)$", str(evalsvc.__doc__).split("The packages,")[1], re.MULTILINE))
    names = [name for name in ORDER if name != "__main__"]
    assert set(names) == set(listed), "evalsvc's docstring and tests/test_architecture.py list the same rooms"
    return {name: listed[name] for name in names}


def imports() -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    found: dict[str, set[str]] = {name: set() for name in rooms()}
    for path in (ROOT / "evalsvc").rglob("*.py"):
        name = path.relative_to(ROOT / "evalsvc").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evalsvc") and name in found:
                parts = (node.module or "").split(".")
                found[name] |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return {name: (targets & set(found)) - {name} for name, targets in found.items()}


def write_rooms() -> str:
    """Return the table of rooms."""
    owned: dict[str, list[str]] = {}
    for package, owners in OWNERS.items():
        for owner in owners:
            owned.setdefault(owner, []).append(package)
    lines = [NOTE, "# Rooms\n", "Ground floor first: a room imports only rooms above it in this table.\n"]
    lines += ["| room | what it holds | imports | heavy packages that it owns |", "|---|---|---|---|"]
    order, used_by = list(rooms()), imports()
    for name, text in rooms().items():
        used = ", ".join(sorted(used_by[name], key=order.index))
        lines.append(f"| `{name}` | {_cell(text)} | {used} | {', '.join(sorted(owned.get(name, [])))} |")
    return "\n".join(lines) + "\n"


FLOORS = {
    "errors": "records and statistics",
    "store": "storage",
    "checkpoints": "scoring",
    "analysis": "answers",
    "hooks": "entry points",
}
"""The first room of each floor of the picture, and the floor's title."""


def floors() -> list[tuple[str, list[str]]]:
    """Return every floor's title and rooms, from the top, the highest room first."""
    stack: list[tuple[str, list[str]]] = []
    for name in rooms():
        if name in FLOORS:
            stack.append((FLOORS[name], []))
        stack[-1][1].insert(0, name)
    return stack[::-1]


def draw_rooms() -> str:
    """Return the picture: floors of rooms, and beside them the way from a checkpoint to a verdict."""
    width, floor, top = 960, 92, 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 800" font-family="system-ui, sans-serif">',
        "<style>text{fill:#1f2430;font-size:15px}.s{font-size:12px;fill:#5a6372}.f{fill:#eef1fb}"
        ".r{fill:#fff;stroke:#3f51b5}.st{fill:#3f51b5}.w{fill:#fff;font-weight:600}.a{stroke:#3f51b5;fill:none}"
        "</style>",
        '<defs><marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#3f51b5"/></marker></defs>',
    ]
    for level, (title, names) in enumerate(floors()):
        y = top + level * (floor + 12)
        parts.append(f'<rect class="f" x="10" y="{y}" width="{width - 20}" height="{floor}" rx="8"/>')
        parts.append(f'<text class="s" x="24" y="{y + 20}">{title}</text>')
        step = (width - 60) / len(names)
        for i, name in enumerate(names):
            x, w = 24 + i * step, min(step - 14, 260)
            parts.append(f'<rect class="r" x="{x:.0f}" y="{y + 32}" width="{w:.0f}" height="44" rx="6"/>')
            parts.append(f'<text x="{x + w / 2:.0f}" y="{y + 59}" text-anchor="middle">{name}</text>')
    base = top + len(FLOORS) * (floor + 12) + 6
    parts.append(
        f'<text class="s" x="24" y="{base + 12}">A room may import rooms of lower floors. The three stages:</text>'
    )
    stages = (
        ("suites", "YAML files"),
        ("plan", "harness, once"),
        ("score", "engine, on Ray"),
        ("grade", "harness"),
        ("store", "one DuckDB file"),
        ("answer", "analysis, gating"),
    )
    step, y = (width - 40) / len(stages), base + 30
    for i, (name, text) in enumerate(stages):
        x, kind = 24 + i * step, name in {"plan", "score", "grade"}
        parts.append(
            f'<rect class="{"st" if kind else "r"}" x="{x:.0f}" y="{y}" width="{step - 30:.0f}" height="56" rx="6"/>'
        )
        middle = x + (step - 30) / 2
        parts.append(
            f'<text class="{"w" if kind else ""}" x="{middle:.0f}" y="{y + 25}" text-anchor="middle">{name}</text>'
        )
        style = ' style="fill:#dfe4ff"' if kind else ""
        parts.append(f'<text class="s"{style} x="{middle:.0f}" y="{y + 43}" text-anchor="middle">{text}</text>')
        if i + 1 < len(stages):
            end = x + step - 4
            parts.append(f'<path class="a" d="M{x + step - 28:.0f} {y + 28}H{end:.0f}" marker-end="url(#h)"/>')
    parts.append("</svg>")
    height = y + 76
    return "\n".join(parts).replace(f"0 0 {width} 800", f"0 0 {width} {height}") + "\n"


# ----------------------------------------------------------------------------------------------------------- schemas


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of every file that users write and of every `--json` output."""
    files = {
        "suite": Suite.model_json_schema(),
        "policy": Policy.model_json_schema() | {"x-waivers": Waiver.model_json_schema()},
        "cost-card": outputs.schema_of(outputs.CostCard),
    }
    return files | {name: outputs.schema_of(output) for name, output in outputs.OUTPUTS.items()}


def write_json_page() -> str:
    """Return the page of JSON outputs."""
    lines = [
        NOTE,
        "# JSON outputs\n",
        "Every `--json` prints one object. Its `schema` is 1; a field may be added without a new number,",
        "none is removed or changes its meaning. Infinite and undefined numbers are null, and named in `not_finite` by",
        'their path (`{"tasks[0].high": "inf"}`), which is missing where there are none.',
        "The JSON schemas are written from the code, and a test holds real",
        "outputs to them.\n",
        "| command | schema |",
        "|---|---|",
    ]
    lines += [f"| `{outputs.COMMANDS[name]}` | [{name}.json](schemas/{name}.json) |" for name in outputs.OUTPUTS]
    lines += [
        "| suite files | [suite.json](schemas/suite.json) |",
        "| policy files | [policy.json](schemas/policy.json) |",
        "| cost cards | [cost-card.json](schemas/cost-card.json) |",
        "",
    ]
    for name, output in outputs.OUTPUTS.items():
        schema = outputs.schema_of(output)
        lines += [f"## {outputs.COMMANDS[name].removeprefix('evalsvc ')}\n", f"{schema.get('description', '')}\n"]
        lines += ["| field | type | meaning |", "|---|---|---|", *_field_rows(schema, schema.get("$defs", {})), ""]
    return "\n".join(lines)


def _field_rows(schema: dict[str, Any], defs: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield f"| `{prefix}{name}` | {_cell(_type(field))} | {_cell(field.get('description', ''))} |"
        inner, many = _object(field, defs)
        if inner and prefix.count(".") < 2:
            yield from _field_rows(inner, defs, f"{prefix}{name}{'[]' if many else ''}.")


def _object(field: dict[str, Any], defs: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """Return the schema of the objects that a field holds, and whether it is a list of them."""
    for option in field.get("anyOf", [field]):
        many = option.get("type") == "array"
        target = option.get("items", {}) if many else option
        if "$ref" in target:
            return defs[target["$ref"].rsplit("/", 1)[1]], many
    return None, False


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "enum" in field:
        return " or ".join(json.dumps(value) for value in field["enum"])
    if "const" in field:
        return json.dumps(field["const"])
    if "$ref" in field:
        return "object"
    if field.get("type") == "array":
        inner = _type(field["items"]) if "items" in field else "value"
        return f"list of {inner}"
    return str(field.get("type", "any"))


def main(arguments: list[str]) -> int:
    """Write the files, or with --check say which of them lag."""
    files = generate()
    lagging = [p for p, text in files.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    names = [os.path.relpath(path, ROOT) for path in lagging]
    if "--check" in arguments:
        if names:
            print(f"generated pages lag behind the code: {', '.join(names)}; run python -m docs.generate")
        return bool(names)
    for path in lagging:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
    print(*names or ["nothing to write"], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
