"""Common claims about adaptation, decided on the stored arms: supported, refuted or undecided, with the test."""

from __future__ import annotations

from typing import get_args

import parts
import stored
import streamlit as st

from evalsvc.analysis.claims import DecidedClaim, Verdict

st.title("Claims")
PAGE = 20
VERDICTS = get_args(Verdict)
SHOWN = {"supported": ("✓", "green"), "refuted": ("✗", "red"), "undecided": ("?", "gray")}


def show(card: DecidedClaim) -> None:
    """Show one claim."""
    mark, colour = SHOWN[card.verdict]
    with st.container(border=True):
        st.markdown(f"**{parts.plain(card.text)}** :{colour}-badge[{mark} {card.verdict}]")
        st.caption(parts.plain(f"{card.about}; {card.test}"))
        if card.estimate is not None and card.low is not None and card.high is not None:
            st.text(f"estimate {card.estimate:+.3f}, 90 % interval [{card.low:+.3f}, {card.high:+.3f}]")
        st.text(card.reason)
        with st.expander("Evidence"):
            st.code("\n".join(card.evidence) or "none", language=None, wrap_lines=True)


with parts.stop_on_error():
    state = stored.finished_state()
    margin = parts.margin()
    cards = stored.claims(state, margin)
if not cards:
    st.info(
        "No claim can be decided yet: the store has no adapted arm and no imported matrix. Start with `evalsvc demo`."
    )
    st.stop()
chosen = st.pills(
    "Verdict", VERDICTS, selection_mode="multi", default=list(VERDICTS), key="verdict", bind="query-params"
)
counts = " · ".join(f"{verdict} {sum(card.verdict == verdict for card in cards)}" for verdict in VERDICTS)
st.caption(f"{counts}. A claim about a method needs independent training runs, not items of a single checkpoint.")
selected = [card for verdict in VERDICTS for card in cards if card.verdict == verdict and verdict in chosen]
for card in parts.page_of(selected, PAGE):
    show(card)
