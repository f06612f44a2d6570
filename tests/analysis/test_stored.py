"""Arms by name, families, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from evalsvc.analysis import stored
from evalsvc.analysis.shared import find_shared
from evalsvc.analysis.stored_claims import load_claim_runs
from evalsvc.errors import EvidenceError, UsageError
from evalsvc.records.arms import Arm
from evalsvc.records.comparisons import Missing
from evalsvc.reports.report import describe_missing
from evalsvc.store.arms import find_arm, find_base, find_family, group_families
from evalsvc.store.store import Store
from tests.support.fakes import NUMERICS, grade_plan, make_arm, make_plan
from tests.support.sampled import make_sampled_plan, sample_words

BASE = make_arm(1)
OTHER_BASE = make_arm(2)
CHILD = Arm(replace(make_arm(3, parent=BASE.checkpoint).checkpoint, name="lora", step=10), NUMERICS)
LATER = Arm(replace(make_arm(4, parent=BASE.checkpoint).checkpoint, name="lora", step=20), NUMERICS)
DOMAIN, GENERAL = make_plan("d", role="domain", text="d"), make_plan("g", text="g")
DOMAIN_60, GENERAL_60 = make_plan("d", n=60, role="domain", text="d"), make_plan("g", n=60, text="g")


@pytest.fixture
def store(db: Path) -> Store:
    made = Store(db)
    made.register([BASE, CHILD, LATER], [DOMAIN, GENERAL], "host:1")
    for of, values in ((BASE, [0, 0, 0, 1, 1, 1]), (CHILD, [0, 1, 1, 1, 1, 0]), (LATER, [1, 1, 1, 1, 1, 1])):
        for item in (DOMAIN, GENERAL):
            made.finish(of, item, grade_plan(item, [float(v) for v in values]))
    return made


def test_arms_are_found_by_label_name_path_and_digest(store: Store) -> None:
    arms = store.arms()
    for text in ("lora@10", CHILD.checkpoint.path, CHILD.checkpoint.digest, "0" * 63 + "3"):
        assert find_arm(arms, text).digest == CHILD.key
    assert find_arm(arms, "c1").digest == BASE.key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora", r"2 arms match: lora@10 \(000000000000\), lora@20"),
        ("lora@11", r"by label, name, path or digest; did you mean lora@10"),
        ("zzz", r"see `evalsvc status`"),
        ("0000", r"3 arms match"),
    ],
)
def test_what_means_none_or_several_is_said(store: Store, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_arm(store.arms(), text)


def test_an_arm_is_compared_with_its_base_or_with_another_arm(store: Store) -> None:
    found = stored.compare_arms(store, "lora@20")
    assert found.base.checkpoint == BASE.checkpoint
    assert [(task.lost, task.gained) for task in found.tasks] == [(0, 3), (0, 3)]
    steps = stored.compare_arms(store, "lora@20", "lora@10")
    assert [(task.lost, task.gained) for task in steps.tasks] == [(0, 2), (0, 2)]


def test_what_cannot_be_compared_is_no_evidence(store: Store) -> None:
    with pytest.raises(EvidenceError, match="c1 is a base, which has no base to compare with"):
        stored.compare_arms(store, "c1")
    orphan = make_arm(9, parent=OTHER_BASE.checkpoint)
    store.register([orphan], [GENERAL], "host:1")
    with pytest.raises(EvidenceError, match="the base of c9 is not in the store; submit c9 again"):
        stored.compare_arms(store, "c9")
    half = Arm(orphan.checkpoint, replace(NUMERICS, dtype="bfloat16"))
    store.register([OTHER_BASE, half], [GENERAL], "host:1")
    with pytest.raises(EvidenceError, match="was scored with other numerics"):
        find_base(store.arms(), find_arm([a for a in store.arms() if a.digest == half.key], "c9"))
    unfinished = make_arm(10, parent=BASE.checkpoint)
    store.register([unfinished], [GENERAL], "host:1")
    with pytest.raises(EvidenceError, match="c10 has no finished run; see `evalsvc status`"):
        stored.compare_arms(store, "c10")


def test_numerics_are_never_mixed(store: Store) -> None:
    half = Arm(CHILD.checkpoint, replace(NUMERICS, dtype="bfloat16"))
    store.register([half], [GENERAL], "host:1")
    with pytest.raises(EvidenceError, match="with different numerics"):
        stored.compare_arms(store, "lora@10", "lora@20")


def test_the_family_of_a_base(store: Store) -> None:
    found = find_family(store.arms())
    assert found.base.checkpoint == BASE.checkpoint
    assert [member.checkpoint.label for member in found.arms] == ["lora@10", "lora@20"]
    assert [point.arm for point in stored.load_frontier(store, found).points] == ["c1", "lora@10", "lora@20"]
    store.register([OTHER_BASE, make_arm(7, parent=OTHER_BASE.checkpoint)], [GENERAL], "host:1")
    with pytest.raises(UsageError, match=r"the store has 2 bases \(c1, c2\); choose one with --base"):
        find_family(store.arms())
    assert find_family(store.arms(), "c2").base.checkpoint == OTHER_BASE.checkpoint
    with pytest.raises(EvidenceError, match="no arm in the store was adapted from it"):
        find_family(store.arms(), "lora@10")


def test_a_store_without_adapted_arms_says_how_to_go_on(db: Path) -> None:
    store = Store(db)
    store.register([BASE], [GENERAL], "host:1")
    with pytest.raises(EvidenceError, match="evalsvc submit CHECKPOINT --base BASE --suite SUITE"):
        find_family(store.arms())


def test_other_prompts_are_refused_unless_they_are_declared(db: Path) -> None:
    store = Store(db)
    same_documents = make_plan("g", text="asked otherwise")
    store.register([BASE], [GENERAL], "host:1")
    store.register([CHILD], [same_documents], "host:1")
    store.finish(BASE, GENERAL, grade_plan(GENERAL, [1.0] * 6))
    store.finish(CHILD, same_documents, grade_plan(same_documents, [1.0] * 4 + [0.0] * 2))
    with pytest.raises(EvidenceError, match=r"6 of 6 documents have different prompts.*--other-prompts"):
        stored.compare_arms(store, "lora@10", "c1")
    (found,) = stored.compare_arms(store, "lora@10", "c1", other_prompts=True).tasks
    assert (found.n, found.lost, found.coverage) == (6, 2, 1.0)


def test_missing_items_are_coverage_not_other_prompts(db: Path) -> None:
    store = Store(db)
    fewer = make_plan("g", n=4, text="g")
    store.register([BASE], [GENERAL], "host:1")
    store.register([CHILD], [fewer], "host:1")
    store.finish(BASE, GENERAL, grade_plan(GENERAL, [1.0] * 6))
    store.finish(CHILD, fewer, grade_plan(fewer, [1.0, 0.0, 1.0, 1.0]))
    (found,) = stored.compare_arms(store, "lora@10", "c1").tasks
    assert (found.n, found.lost) == (4, 1)
    assert found.coverage == pytest.approx(4 / 6)


def test_a_second_run_of_the_base_is_the_floor_and_no_arm_of_its_own(store: Store) -> None:
    again = Arm(BASE.checkpoint, replace(NUMERICS, rerun=1))
    store.register([again], [DOMAIN, GENERAL], "host:1")
    for item in (DOMAIN, GENERAL):
        store.finish(again, item, grade_plan(item, [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]))
    assert find_arm(store.arms(), "c1").digest == BASE.key
    found = stored.compare_arms(store, "lora@10").tasks
    floors = [task.floor for task in found]
    assert all(floor is not None and floor.lost == pytest.approx(1 / 6) for floor in floors)
    assert [family.base.digest for family in group_families(store.arms())] == [BASE.key]


def test_clusters_answers_and_formats_come_out_of_the_store_as_they_went_in(db: Path) -> None:
    task = GENERAL.tasks[0]
    samples = tuple(replace(sample, cluster=name) for sample, name in zip(task.samples, "aabbcc", strict=True))
    clustered = replace(GENERAL, digest="clustered", tasks=(replace(task, samples=samples, chance=0.5, format_of="x"),))
    store = Store(db)
    store.register([BASE], [clustered], "host:1")
    made = grade_plan(clustered, [1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    answered = tuple(
        replace(score, answer=number, invalid=number == 3, confidence=number / 10)
        for number, score in enumerate(made.scores[task.name])
    )
    store.finish(BASE, clustered, replace(made, scores={task.name: answered}))
    ((found,),) = store.task_scores(1, []).values()
    assert found.clusters is not None
    assert [len(set(pair)) for pair in found.clusters.reshape(3, 2).tolist()] == [1, 1, 1]
    assert len(set(found.clusters.tolist())) == 3
    assert found.answers is not None
    assert found.answers.tolist() == list(range(6))
    assert found.invalid is not None
    assert found.invalid.tolist() == [False, False, False, True, False, False]
    assert found.confidence is not None
    assert found.confidence.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert (found.chance, found.format_of) == (0.5, "x")


# -------------------------------------------------------------------------------------------------------- the yardstick


def test_one_more_suite_of_the_base_changes_no_other_arm(store: Store) -> None:
    def look() -> tuple[object, ...]:
        compared = stored.compare_arms(store, "lora@10")
        placed = stored.load_frontier(store, find_family(store.arms(), "c1"))
        points = {point.arm: point for point in placed.points}
        runs = [run for run in load_claim_runs(store, find_family(store.arms(), "c1")) if run[0].label == "lora@20"]
        return compared.tasks, compared.roles, points["lora@10"].learning_low, points["lora@20"].forgetting, runs

    before = look()
    extra, late = make_plan("extra", text="extra"), make_arm(5, parent=BASE.checkpoint)
    store.register([BASE, late], [extra], "host:1")
    for of in (BASE, late):
        store.finish(of, extra, grade_plan(extra, [1.0] * 6))
    assert look() == before
    assert stored.compare_arms(store, "lora@10").missing == (Missing("lora@10", ("extra",)),)
    family = find_family(store.arms(), "c1")
    placed = stored.load_frontier(store, family)
    assert (placed.suites, placed.unshared) == (("d", "g"), ("extra",))
    assert placed.missing == (Missing("c5", ("d", "g")),)
    store.register([late], [DOMAIN], "host:1")
    store.finish(late, DOMAIN, grade_plan(DOMAIN, [1.0] * 6))
    only = stored.load_frontier(store, family, suites=["extra"])
    assert ([point.arm for point in only.points], only.suites) == (["c1", "c5"], ("d", "extra"))
    with pytest.raises(UsageError, match="suite 'nope': has no scores; suites with scores: d, extra, g"):
        stored.load_frontier(store, family, suites=["nope"])
    with pytest.raises(UsageError, match="suite 'nope'"):
        stored.compare_arms(store, "lora@10", suites=["nope"])
    (task,) = stored.compare_arms(store, "lora@10", suites=["d"]).tasks
    assert task.suite == "d"
    with pytest.raises(EvidenceError, match="lora@10 has no finished run on extra"):
        stored.compare_arms(store, "lora@10", suites=["extra"])
    with pytest.raises(
        EvidenceError, match=r"c5 and lora@10 have no task and metric in common on g, extra: lora@10 has g"
    ):
        stored.compare_arms(store, "c5", "lora@10", suites=["g", "extra"])


def test_an_arm_on_another_version_of_a_suite_is_named_and_not_placed(store: Store) -> None:
    """Its level is one of other items, which is no published level of the same ones."""
    newer = make_plan("g", text="newer")
    store.register([BASE, LATER], [newer], "host:1")
    for of in (BASE, LATER):
        store.finish(of, newer, grade_plan(newer, [1.0] * 6))
    placed = stored.load_frontier(store, find_family(store.arms(), "c1"))
    assert [point.arm for point in placed.points] == ["c1", "lora@20"]
    assert placed.missing == (Missing("lora@10", ("g",), ("g",)),)
    advice = "(has scores on another version of g; run: evalsvc submit lora@10)"
    assert describe_missing(placed.missing) == f"lora@10 lacks g {advice}"
    store.register([CHILD], [newer], "host:1")
    store.finish(CHILD, newer, grade_plan(newer, [1.0] * 6))
    placed = stored.load_frontier(store, find_family(store.arms(), "c1"))
    assert (len(placed.points), placed.missing) == (3, ())


@pytest.mark.parametrize(
    ("scored", "shared"),
    [
        (["vc", "vc"], "vc"),
        (["vcn", "vc"], "vc"),  # one more suite of one arm
        (["vcn", "vc", "vc"], "vc"),
        (["vc", "vc", "v"], "vc"),  # one less
        (["vc", "vc", "vc", "v", ""], "vc"),
        (["vc", "v"], "v"),
        (["vw", "cd"], "vw"),  # nothing in common: those of the first
        (["vc", "cn", "nv"], "v"),  # no arm has what most have
        (["vcn"], "vcn"),
        (["", ""], ""),
        ([], ""),
    ],
)
def test_arms_are_compared_on_what_most_of_them_have_together(scored: list[str], shared: str) -> None:
    assert sorted(find_shared(scored)) == sorted(shared)


def test_the_score_of_sampled_answers_is_a_placeholder_and_no_task_of_holms_family(db: Path) -> None:
    store, sampled = Store(db), make_sampled_plan(30, 4)
    store.register([BASE, CHILD], [DOMAIN_60, GENERAL_60, sampled], "host:1")
    for of, right in ((BASE, (30, 50)), (CHILD, (45, 42))):
        sample_words(store, of, sampled, 500)
        for plan, count in zip((DOMAIN_60, GENERAL_60), right, strict=True):
            store.finish(of, plan, grade_plan(plan, [1.0] * count + [0.0] * (60 - count)))
    comparison = stored.compare_arms(store, "lora@10")
    assert (
        [task.role for task in comparison.tasks] == [total.role for total in comparison.roles] == ["domain", "general"]
    )
    # Exact tests of 15 gained of 15 changed, and of 8 lost of 8.
    p = [float(stats.binomtest(changed, changed).pvalue) for changed in (15, 8)]
    assert [task.p_value for task in comparison.tasks] == pytest.approx(p, rel=1e-9)
    assert [task.p_holm for task in comparison.tasks] == pytest.approx(multipletests(p, method="holm")[1], rel=1e-9)
    assert [task.q_value for task in comparison.tasks] == pytest.approx(multipletests(p, method="fdr_bh")[1], rel=1e-9)
    with pytest.raises(EvidenceError, match="c1 has only sampled answers on open, which `evalsvc diversity lora@10`"):
        stored.compare_arms(store, "lora@10", suites=["open"])
