"""Items: lost, gained, right in both, wrong in both; with both arms' answers and the gold answer."""

from __future__ import annotations

import json
from typing import Any

import parts
import stored
import streamlit as st

from evalsvc.reports.decisions import quote, truncate
from evalsvc.reports.formatting import label_tasks
from evalsvc.store.items import FATES, PAGE, Filter, ItemAnswer, PairedItem

st.title("Samples")
EVERY = "all"


def choices_of(item: PairedItem) -> list[str]:
    """Return the choices of an item's document; empty if it has none."""
    try:
        doc: Any = json.loads(item.doc)
    except ValueError:
        return []
    choices = doc.get("choices") if isinstance(doc, dict) else None
    if isinstance(choices, dict):
        choices = choices.get("text")
    return [str(choice) for choice in choices] if isinstance(choices, list) else []


def gold_of(item: PairedItem) -> str:
    """Return the gold answer; if it is the number of a choice, with its text."""
    choices = choices_of(item)
    if item.target.isdigit() and int(item.target) < len(choices):
        return f"{item.target}: {choices[int(item.target)]}"
    return item.target


def show(item: PairedItem, base: int, adapted: int, names: tuple[str, str]) -> None:
    """Show an item in full."""
    st.subheader(f"Item {item.sample}: {item.fate}")
    if item.base_invalid or item.adapted_invalid:
        who = [name for name, bad in zip(names, (item.base_invalid, item.adapted_invalid), strict=True) if bad]
        st.warning(f"No answer of {parts.plain(' and '.join(who))} could be parsed; it counts as wrong.")
    requests = stored.list_requests(state, item.sample, base, adapted)
    generated = [request for request in requests if request.kind.startswith("generate")]
    if requests:
        st.caption(
            "Prompt" + ("" if len({request.arguments[0] for request in requests}) == 1 else " of the first request")
        )
        st.code(requests[0].arguments[0], language=None, wrap_lines=True)
    st.caption("Gold answer")
    st.code(gold_of(item), language=None, wrap_lines=True)
    if generated:
        for name, answer in zip(names, (generated[0].base, generated[0].adapted), strict=True):
            st.caption(f"Answer of {parts.plain(name)}")
            st.code(answer.text if answer.text is not None else "(no answer stored)", language=None, wrap_lines=True)
    elif requests:
        best = [likeliest([getattr(request, side) for request in requests]) for side in ("base", "adapted")]
        parts.table(
            [
                {
                    "choice": request.arguments[-1],
                    "gold": "●" if item.target == str(place) else "",
                    f"{names[0]}: log-likelihood": request.base.loglikelihood,
                    f"{names[0]}: most likely": "●" if best[0] == place else "",
                    f"{names[1]}: log-likelihood": request.adapted.loglikelihood,
                    f"{names[1]}: most likely": "●" if best[1] == place else "",
                }
                for place, request in enumerate(requests)
            ],
            dict.fromkeys((f"{name}: log-likelihood" for name in names), parts.LEVEL),
        )
        st.caption(
            "Log-likelihoods in nats, summed over the tokens of a choice; the metric may normalise them by length."
        )
    cut_off = sum(answer.truncated or 0 for request in requests for answer in (request.base, request.adapted))
    if cut_off:
        st.warning(
            f"{cut_off:,} prompt tokens were cut from the left: the prompts are longer than the model's context window."
        )
    with st.expander("Document"):
        st.code(item.doc, language="json", wrap_lines=True)


def likeliest(answers: list[ItemAnswer]) -> int | None:
    """Return the number of the choice with the highest log-likelihood; None if one is unknown."""
    known = [answer.loglikelihood for answer in answers]
    if not known or any(value is None for value in known):
        return None
    return max(range(len(known)), key=lambda place: known[place] or 0.0)


with parts.stop_on_error():
    state = stored.finished_state()
    base_name = parts.base_of(state)
    family = stored.families(state)[base_name]
    arms = stored.unique_names(list(family.arms))
    columns = st.columns(3)
    with columns[0]:
        arm_name = str(st.selectbox("Arm", list(arms), index=len(arms) - 1, key="arm", bind="query-params"))
    with columns[1]:
        suites = [EVERY, *stored.suites(state, base_name)]
        suite = str(st.selectbox("Suite", suites, key="suite", bind="query-params"))
    comparison = stored.compare_arms(state, base_name, arm_name)
    with columns[2]:
        tasks = [EVERY, *(task.task for task in comparison.tasks if suite in {EVERY, task.suite})]
        task = str(st.selectbox("Task", list(dict.fromkeys(tasks)), key="task", bind="query-params"))
    fates = st.pills("Fate", FATES, selection_mode="multi", default=["lost"], key="fate", bind="query-params")
    below = st.columns([3, 1, 1], vertical_alignment="bottom")
    text = below[0].text_input("Text in document, gold answer or subject", key="text", bind="query-params")
    unparsed = below[1].toggle("Unparsed only", key="unparsed", bind="query-params")
    page = int(below[2].number_input("Page", min_value=1, value=1, step=1, key="page", bind="query-params"))
    base, adapted = family.base, arms[arm_name]
    query = Filter(
        suite=None if suite == EVERY else suite,
        task=None if task == EVERY else task,
        fates=tuple(fate for fate in FATES if fate in fates),
        text=str(text or "").strip(),
        unparsed=bool(unparsed),
    )
    matches = stored.page_of_items(state, base.number, adapted.number, query, (page - 1) * PAGE, PAGE)

pages = max(1, -(-matches.total // PAGE))
st.caption(
    " · ".join(f"{fate} {matches.counts.get(fate, 0):,}" for fate in FATES)
    + f". Page {page:,} of {pages:,}, {matches.total:,} items, largest loss first."
)
if not matches.items:
    st.info("No items match. Choose another fate, task or text, or an earlier page.")
    st.stop()
labels = label_tasks(
    [*((task.suite, task.task) for task in comparison.tasks), *((item.suite, item.task) for item in matches.items)]
)
picked = parts.table(
    [
        {
            "item": item.sample,
            "fate": item.fate,
            "task": labels[item.suite, item.task],
            "subject": item.cluster or "",
            "text": truncate(quote(item.doc), 160),
            "gold": truncate(gold_of(item), 60),
            base_name: item.base,
            arm_name: item.adapted,
            "unparsed": "/".join(
                name for name, bad in (("base", item.base_invalid), ("arm", item.adapted_invalid)) if bad
            ),
        }
        for item in matches.items
    ],
    {base_name: parts.LEVEL, arm_name: parts.LEVEL},
    on_select="rerun",
    selection_mode="single-row",
    key="items",
    height=380,
)
chosen = picked.selection.rows if picked else []
linked_item = st.query_params.get("item")
shown = next((item for item in matches.items if str(item.sample) == linked_item), matches.items[0])
if chosen and chosen[0] < len(matches.items):
    shown = matches.items[chosen[0]]
if str(shown.sample) != linked_item:
    st.query_params["item"] = str(shown.sample)
with parts.stop_on_error():
    show(shown, base.number, adapted.number, (base_name, arm_name))
