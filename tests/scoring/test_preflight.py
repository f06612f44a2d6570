"""Whatever would give a wrong score is refused before anything is scored: one fixture per finding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from evalsvc.checkpoints.discover import Description, open_checkpoints
from evalsvc.engine.sharding import Cutter
from evalsvc.errors import CheckpointError
from evalsvc.harness import plan as planning
from evalsvc.harness import tasks as loading
from evalsvc.harness.suites import load_suite
from evalsvc.records.arms import Arm, Finding, Numerics, Serving
from evalsvc.records.plans import Rendering, Request
from evalsvc.scoring.executors import InProcessExecutor, make_scorer
from evalsvc.scoring.preflight import examine_checkpoints, examine_generation, examine_windows, refuse_errors
from evalsvc.scoring.probe import PLAN, run_probe
from evalsvc.settings import cache_dir
from tests.support import tiny
from tests.support.tasks import CHOICE, write_task

NUMERICS = Numerics(device="cpu", dtype="float32", torch="2", transformers="5")
Tensors = dict[str, torch.Tensor]


def found(folder: Path, base: Path) -> list[Finding]:
    """Return what is found against the checkpoint in a folder, beside what is found against its base."""
    root, adapted = open_checkpoints(str(folder), str(base), Description(name="it"))
    return [finding for finding in examine_checkpoints(root, adapted) if finding.checkpoint.startswith("it")]


def probed(folder: Path, base: Path) -> list[Finding]:
    root, adapted = open_checkpoints(str(folder), str(base), Description(name="it"))
    with InProcessExecutor(partial(make_scorer, 1)) as executor:
        return run_probe(
            executor, [Arm(checkpoint, NUMERICS) for checkpoint in (root, *adapted)], Cutter(cache_dir() / "tokens")
        )


def expect(findings: list[Finding], severity: str, check: str, text: str) -> None:
    """Check that there is one such finding, in one line, and that errors are refused with it."""
    mine = [finding for finding in findings if finding.check == check]
    assert [finding.severity for finding in mine] == [severity], findings
    assert text in mine[0].text
    assert "\n" not in mine[0].text
    if severity == "error":
        with pytest.raises(CheckpointError, match="checkpoint it"):
            refuse_errors(findings)
    else:
        refuse_errors(mine)


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return Path(shutil.copytree(models / name, tmp_path / f"{Path(name).name}-copy"))

    return make


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(path: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


# ------------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("name", ["full", "lora"])
def test_nothing_is_said_against_a_sound_checkpoint(models: Path, name: str) -> None:
    assert found(models / name, models / "base") == []
    assert probed(models / name, models / "base") == []


def test_real_adaptations_pass(data: Path) -> None:
    base = data / "models" / "stories260K"
    for run in ("full_s0", "lora4_s0"):
        folder = data / "models" / "adapted" / run
        # The adapters name their base by the last part of its path.
        assert {finding.severity for finding in found(folder, base) if finding.check != "base-name"} <= {"note"}
        assert probed(folder, base) == []


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_and_infinity(models: Path, copy: Callable[[str], Path], value: float, dtype: torch.dtype) -> None:
    folder = copy("full")

    def spoil(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value

    edit_tensors(folder / "model.safetensors", spoil)
    text = "1 of 21 tensors hold NaN or infinity (first: model.layers.1.mlp.up_proj.weight)"
    expect(found(folder, models / "base"), "error", "finite", text)


def test_large_numbers_are_numbers(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors["model.norm.weight"].fill_(3.4e38))
    assert found(folder, models / "base") == []


def test_pickled_weights_beside_safetensors_are_not_read(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    expect(found(folder, models / "base"), "note", "pickled", "pytorch_model.bin is pickled and is not read")


def test_tensors_that_are_missing(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    text = "1 tensors are missing (first: model.layers.1.mlp.up_proj.weight); they would be replaced by random numbers"
    expect(found(folder, models / "base"), "error", "missing-tensors", text)


def test_tensors_that_belong_nowhere(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(extra=torch.ones(2)))
    expect(found(folder, models / "base"), "warning", "unexpected-tensors", "would be ignored (first: extra)")


def test_a_model_that_was_saved_with_its_adapter_beside_it(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({name: torch.ones(4, 32)}))
    expect(found(folder, models / "base"), "error", "unexpected-tensors", "merge the adapter before saving")


def test_tensors_of_another_shape(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    name = "model.layers.0.mlp.up_proj.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({name: tensors[name].T}))
    expect(found(folder, models / "base"), "error", "shapes", f"first: {name} is 32x64, must be 64x32")


def test_a_missing_shard_and_a_corrupt_header(models: Path, tmp_path: Path) -> None:
    tiny.make_llama().save_pretrained(tmp_path, max_shard_size="40KB")
    tiny.make_tokenizer().save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"1 of its {len(shards)} weight files are missing"):
        found(tmp_path, models / "base")
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"shards but no model.safetensors.index.json"):
        found(tmp_path, models / "base")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_offsets": [4, 12]}, "overlaps another, or leaves a gap"),
        ({"shape": [3]}, r"has 8 bytes, which does not match F32 \[3\]"),
        ({"dtype": "F64"}, r"has 8 bytes, which does not match F64 \[2\]"),
        ({"data_offsets": [0, 4], "shape": [1]}, "4 bytes after the last tensor"),
    ],
)
def test_a_header_that_does_not_fit_its_file(
    models: Path, copy: Callable[[str], Path], change: dict[str, Any], message: str
) -> None:
    folder = copy("full")
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}
    head = json.dumps({"w": entry}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    with pytest.raises(CheckpointError, match=message):
        found(folder, models / "base")


def test_code_of_its_own_is_not_run(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    (folder / "modeling_mine.py").write_text("raise SystemExit('this ran')\n")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    expect(found(folder, models / "base"), "warning", "custom-code", "which is never run")
    edit_json(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "modeling_mine.Config"})
    expect(found(folder, models / "base"), "error", "architecture", "needs custom code, which is never run")


def test_another_task(models: Path, tmp_path: Path, copy: Callable[[str], Path]) -> None:
    model: Any = LlamaForSequenceClassification(tiny.make_llama().config)
    model.save_pretrained(tmp_path / "classifier")
    tiny.make_tokenizer().save_pretrained(tmp_path / "classifier")
    expect(found(tmp_path / "classifier", models / "base"), "error", "task-type", "LlamaForSequenceClassification")
    folder = copy("lora")
    edit_json(folder / "adapter_config.json", task_type="SEQ_CLS")
    expect(found(folder, models / "base"), "error", "task-type", "task SEQ_CLS, must be CAUSAL_LM")


# ----------------------------------------------------------------------------------------------------------- adapters


def test_the_identity_adapter_is_refused(models: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(models / "base")
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "zero"))
    expect(found(tmp_path / "zero", models / "base"), "error", "no-effect", "exactly zero")


def test_an_adapter_whose_logits_are_those_of_the_base_is_refused(models: Path, tmp_path: Path) -> None:
    from peft import IA3Config

    kind = IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type=TaskType.CAUSAL_LM)
    get_peft_model(LlamaForCausalLM.from_pretrained(models / "base"), kind).save_pretrained(str(tmp_path / "ones"))
    assert found(tmp_path / "ones", models / "base") == []  # factors of one: only the logits tell
    expect(probed(tmp_path / "ones", models / "base"), "error", "no-effect", "the adapter has no effect")


def test_weights_that_differ_in_nothing_that_counts(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("base")
    edit_json(folder / "generation_config.json", top_k=7)
    expect(probed(folder, models / "base"), "warning", "no-effect", "only its files differ")


def test_keys_that_match_no_module(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("lora")

    def rename(tensors: Tensors) -> None:
        for name in [name for name in tensors if "layers.1." in name]:
            tensors[name.replace("layers.1.", "layers.5.")] = tensors.pop(name)

    edit_tensors(folder / "adapter_model.safetensors", rename)
    findings = [finding for finding in found(folder, models / "base") if finding.check == "adapter-keys"]
    assert [finding.severity for finding in findings] == ["error", "error"]
    assert "6 of its 12 tensors match no module of the base" in findings[0].text
    assert "it has layers up to 6, the base 2" in findings[0].text
    assert "6 tensors of its configuration are missing" in findings[1].text


def test_trained_embeddings_that_match_no_module(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("lora")
    name = "base_model.model.model.embed_tokens.lora_embedding_A"
    edit_tensors(folder / "adapter_model.safetensors", lambda tensors: tensors.update({name: torch.ones(4, 368)}))
    expect(
        found(folder, models / "base"),
        "error",
        "adapter-keys",
        f"1 of its 13 tensors match no module of the base (first: {name})",
    )


def test_an_adapter_of_a_base_of_another_size(models: Path, tmp_path: Path) -> None:
    config = tiny.make_llama().config
    config.hidden_size, config.head_dim = 48, 12
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wide")
    tiny.make_tokenizer().save_pretrained(tmp_path / "wide")
    tiny.save_adapter(tmp_path / "lora", tmp_path / "wide", seed=1)
    expect(found(tmp_path / "lora", models / "base"), "error", "adapter-shapes", "it was trained on a base of another")


def test_an_adapter_of_a_base_of_another_depth(models: Path, tmp_path: Path) -> None:
    config = tiny.make_llama().config
    config.num_hidden_layers = 3
    LlamaForCausalLM(config).save_pretrained(tmp_path / "deep")
    tiny.make_tokenizer().save_pretrained(tmp_path / "deep")
    tiny.save_adapter(tmp_path / "lora", tmp_path / "deep", seed=1)
    expect(found(tmp_path / "lora", models / "base"), "error", "adapter-keys", "layers up to 3, the base 2")


def test_an_adapter_of_another_architecture(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("lora")
    edit_json(folder / "adapter_config.json", target_modules=["c_attn"])
    expect(found(folder, models / "base"), "error", "adapter-keys", "cannot be attached to")


def test_an_adapter_that_was_trained_with_a_grown_vocabulary(models: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(models / "base")
    model.resize_token_embeddings(372)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "grown"))
    findings = found(tmp_path / "grown", models / "base")
    assert {finding.check for finding in findings if finding.severity == "error"} == {"vocabulary"}
    assert "has 372 rows, the base's 368" in findings[0].text


def test_an_adapter_that_carries_the_embeddings_of_another_base(models: Path, tmp_path: Path) -> None:
    for source, sound in ((models / "base", True), (models / "full", False)):
        model = LlamaForCausalLM.from_pretrained(source)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
        folder = tmp_path / source.name
        adapted.save_pretrained(str(folder), save_embedding_layers=True)
        errors = {f.check for f in found(folder, models / "base") if f.severity == "error"}
        assert errors == (set() if sound else {"embeddings", "other-base"})


def test_an_adapter_that_names_another_base(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("lora")
    edit_json(folder / "adapter_config.json", base_model_name_or_path="org/other")
    expect(found(folder, models / "base"), "error", "other-base", "names the base 'org/other', not /")
    root, (checkpoint,) = open_checkpoints(str(folder), str(models / "base"), Description())
    _, consented = examine_checkpoints(root, [checkpoint], accepted={checkpoint.digest})
    assert (consented.severity, consented.check) == ("warning", "other-base")
    refuse_errors([consented])


@pytest.mark.parametrize("named", ["~nobody-here/x", "a\0b", "x" * 5000, "[/x]\n\x1b", "."])
def test_a_base_may_be_named_anything(models: Path, copy: Callable[[str], Path], named: str) -> None:
    folder = copy("lora")
    edit_json(folder / "adapter_config.json", base_model_name_or_path=named)
    expect(found(folder, models / "base"), "error", "other-base", "its configuration names the base")


@pytest.mark.parametrize(
    ("named", "place", "check"),
    [
        ("org-a/llama", "models--org-a--llama/snapshots/0a1b", None),
        ("/hub/models--Org-A--llama/snapshots/9f9f", "models--org-a--llama/snapshots/0a1b", None),
        ("org-a/llama", "models--org-b--llama/snapshots/0a1b", "other-base"),
        ("runs/x/final", "runs/x/final", None),
        ("runs/x/final", "runs/y/final", "other-base"),
        ("/elsewhere/x/final", "y/final", "other-base"),
        ("org-a/llama", "org-a/Llama", None),
        ("org-a/llama", "llama", "base-name"),
        ("llama", "llama", "base-name"),
        ("/hub/models--org-a--llama/snapshots/9f9f", "llama", "base-name"),
        ("/elsewhere/llama", "models--org-a--llama/snapshots/0a1b", "base-name"),
        (None, "llama", None),
    ],
)
def test_names_of_bases_are_compared_whole(
    models: Path, copy: Callable[[str], Path], tmp_path: Path, named: str | None, place: str, check: str | None
) -> None:
    """Where the weights that an adapter was trained on are not on this machine."""
    folder, base = copy("lora"), Path(shutil.copytree(models / "base", tmp_path / "bases" / place))
    edit_json(folder / "adapter_config.json", base_model_name_or_path=named)
    assert [finding.check for finding in found(folder, base)] == ([check] if check else [])
    if check == "base-name":
        expect(found(folder, base), "warning", check, f"are not on this machine: {base} is taken for it")


def test_a_base_in_the_hubs_cache_is_known_by_its_weights(
    models: Path, copy: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository, folder, moved = tmp_path / "hub" / "models--org--llama", copy("lora"), copy("base")
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(models / "base", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    cached = repository / "snapshots" / ("b" * 40) / "model.safetensors"
    edit_tensors(cached, lambda tensors: tensors["model.norm.weight"].add_(1))
    edit_json(folder / "adapter_config.json", base_model_name_or_path="org/llama")
    assert found(folder, moved) == []
    edit_json(folder / "adapter_config.json", base_model_name_or_path="org/llama", revision="b" * 40)
    expect(found(folder, moved), "error", "other-base", "whose weights differ from those of")


def test_a_base_is_known_by_its_weights_under_another_name(models: Path, copy: Callable[[str], Path]) -> None:
    folder, moved = copy("lora"), copy("base")
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(models / "base"))
    assert found(folder, moved) == []  # another name, the same weights
    edit_tensors(moved / "model.safetensors", lambda tensors: tensors["model.norm.weight"].add_(1))
    expect(found(folder, moved), "error", "other-base", "whose weights differ from those of")


def test_an_adapter_that_was_trained_on_an_adapter(models: Path, copy: Callable[[str], Path]) -> None:
    sft = copy("lora")
    dpo = Path(shutil.copytree(models / "run" / "checkpoint-10", sft.parent / "dpo"))
    for named in (str(sft), sft.name):  # as a path, and as a name of the folder beside it
        edit_json(dpo / "adapter_config.json", base_model_name_or_path=named)
        text = f"it was trained on the adapter {named!r}, not on base; merge {named!r} into its own base"
        expect(found(dpo, models / "base"), "error", "other-base", text)
        with pytest.raises(CheckpointError, match=r"was trained on the adapter .* --base MERGED --base-anyway"):
            open_checkpoints(str(dpo), None, Description())
    with pytest.raises(CheckpointError, match=r"is an adapter; .* --base MERGED --base-anyway"):
        open_checkpoints(str(dpo), str(sft), Description())


def test_an_initialisation_that_changed_the_base(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("lora")
    edit_json(folder / "adapter_config.json", init_lora_weights="lora_ga", lora_ga_config={})
    expect(found(folder, models / "base"), "error", "other-base", "lora_ga changed the base's weights before training")


# ----------------------------------------------------------------------------------------------- reasons name the cause


@pytest.mark.parametrize("name", ["full", "lora"])
def test_weights_that_were_never_gathered(models: Path, copy: Callable[[str], Path], name: str) -> None:
    folder = copy(name)
    file = folder / ("model.safetensors" if name == "full" else "adapter_model.safetensors")
    edit_tensors(file, lambda tensors: tensors.update({key: torch.empty(0) for key in tensors}))
    findings = found(folder, models / "base")
    expect(findings, "error", "not-gathered", "tensors are empty")
    assert len(findings) == 1


@pytest.mark.parametrize(
    ("prefix", "origin"),
    [("_orig_mod.", "compiled by torch.compile"), ("module.", "wrapped for parallel training")],
)
def test_names_with_the_prefix_of_a_wrapper(
    models: Path, copy: Callable[[str], Path], prefix: str, origin: str
) -> None:
    def rename(old: str, new: str) -> Callable[[Tensors], object]:
        return lambda tensors: [
            tensors.update({new + name.removeprefix(old): tensors.pop(name)}) for name in [*tensors]
        ]

    full, lora, doubled = copy("full"), copy("lora"), copy("run/checkpoint-10")
    edit_tensors(full / "model.safetensors", rename("", prefix))
    expect(found(full, models / "base"), "error", "missing-tensors", f"it was saved from a model {origin}")
    peft_prefix = "base_model.model."
    edit_tensors(lora / "adapter_model.safetensors", rename(peft_prefix, peft_prefix + prefix))
    texts = [finding.text for finding in found(lora, models / "base") if finding.severity == "error"]
    assert f"it was saved from a model {origin}: save the unwrapped model, or remove {prefix!r}" in texts[0]
    edit_tensors(doubled / "adapter_model.safetensors", rename("", peft_prefix))
    texts = [finding.text for finding in found(doubled, models / "base") if finding.severity == "error"]
    assert f"a PEFT model inside another PEFT model: save the unwrapped model, or remove {peft_prefix!r}" in texts[0]


def test_an_adapter_with_trained_embeddings_of_another_vocabulary(models: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(models / "base")
    model.resize_token_embeddings(372)
    trained = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    tiny.randomise(get_peft_model(model, trained)).save_pretrained(str(tmp_path / "grown"))
    errors = [finding for finding in found(tmp_path / "grown", models / "base") if finding.severity == "error"]
    assert {finding.check for finding in errors} == {"vocabulary"}
    assert "it was trained with a vocabulary of 372 rows; merge it into the base that" in errors[0].text


@pytest.mark.parametrize(
    ("name", "other"),
    [("full", "pytorch_model.safetensors"), ("lora", "model.safetensors"), ("lora", "lora.safetensors")],
)
def test_weights_under_another_name(models: Path, copy: Callable[[str], Path], name: str, other: str) -> None:
    folder = copy(name)
    right = "model.safetensors" if name == "full" else "adapter_model.safetensors"
    (folder / right).rename(folder / other)
    with pytest.raises(CheckpointError, match=f"has {other}, but loaders only read {right}; .* rename the file"):
        found(folder, models / "base")
    (folder / other).rename(folder / right)  # as advised
    assert found(folder, models / "base") == []


def test_parts_of_fsdp_and_deepspeed_checkpoints(models: Path, copy: Callable[[str], Path], tmp_path: Path) -> None:
    step = tmp_path / "run" / "checkpoint-5"
    (step / "pytorch_model_fsdp_0").mkdir(parents=True)
    (step / "pytorch_model_fsdp_0" / "__0_0.distcp").write_bytes(b"0")
    (step / "trainer_state.json").write_text("{}")
    joining = rf"`accelerate merge-weights {step / 'pytorch_model_fsdp_0'} OUTPUT`"
    with pytest.raises(CheckpointError, match=rf"no step can be loaded; checkpoint-5: .* FSDP .*{joining}"):
        found(tmp_path / "run", models / "base")
    shutil.copytree(copy("full"), tmp_path / "run" / "checkpoint-6")
    shutil.copy(step / "trainer_state.json", tmp_path / "run" / "checkpoint-6")
    notes: list[str] = []
    _, steps = open_checkpoints(str(tmp_path / "run"), str(models / "base"), Description(), note=notes.append)
    assert [checkpoint.step for checkpoint in steps] == [6]
    assert len(notes) == 1
    assert notes[0].startswith("checkpoint-5: left out of the trajectory: its weights are parts of an FSDP checkpoint")
    deepspeed = tmp_path / "checkpoint-7"
    deepspeed.mkdir()
    (deepspeed / "zero_to_fp32.py").touch()
    with pytest.raises(CheckpointError, match=r"DeepSpeed .* zero_to_fp32.py"):
        found(deepspeed, models / "base")


def test_a_quantization_config_that_was_left(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    edit_json(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    findings = found(folder, models / "base")
    expect(
        findings, "error", "left-over-quantisation", "has a quantization_config (bitsandbytes), but its weights are not"
    )
    assert len(findings) == 1


def test_tied_heads_that_come_apart(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny.make_llama(tied=True).save_pretrained(base)
    tiny.make_tokenizer().save_pretrained(base)
    both = LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], init_lora_weights=False)
    tiny.save_peft(tmp_path / "lora", base, both)
    expect(
        found(tmp_path / "lora", base), "warning", "tied", "it trains embed_tokens, but the base's output head is its"
    )
    tying = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    tiny.save_peft(tmp_path / "tying", base, tying)
    assert found(tmp_path / "tying", base) == []
    full = Path(shutil.copytree(base, tmp_path / "full"))
    head = {"lm_head.weight": torch.ones(368, 32)}
    edit_tensors(full / "model.safetensors", lambda tensors: tensors.update(head))
    expect(found(full, base), "warning", "tied", "ties the output head to the embeddings, but its file has another")


def test_a_tokenizer_that_appends_eos(models: Path, copy: Callable[[str], Path]) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = copy("full")
    words: Any = tiny.make_tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    words.save_pretrained(folder)
    expect(found(folder, models / "base"), "warning", "appended-eos", "its tokenizer appends EOS to every text")


# --------------------------------------------------------------------------------------------------------- tokenizers


def test_full_weights_of_another_shape_than_the_base(models: Path, tmp_path: Path) -> None:
    config = tiny.make_llama().config
    config.num_hidden_layers = 3
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny.make_tokenizer().save_pretrained(tmp_path)
    expect(found(tmp_path, models / "base"), "warning", "base-shape", "its depth is 3, the base's 2")


def test_a_grown_vocabulary_is_taken_and_named(models: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(models / "full")
    words = tiny.make_tokenizer()
    words.add_tokens([f"<new{n}>" for n in range(20)])
    model.resize_token_embeddings(len(words))
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    findings = found(tmp_path, models / "base")
    expect(findings, "note", "vocabulary", "has 380 rows, the base's 368")
    expect(findings, "warning", "tokenizer", "20 tokens added (first: '<new0>')")
    assert probed(tmp_path, models / "base") == []


def test_a_padded_vocabulary_is_left_as_it_is(models: Path) -> None:
    root, _ = open_checkpoints(str(models / "base"), None, Description())
    (finding,) = examine_checkpoints(root, [])
    assert (finding.severity, finding.check) == ("note", "vocabulary")
    assert "368 rows for 360 tokens" in finding.text


def test_a_tokenizer_with_more_ids_than_rows(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    words = tiny.make_tokenizer()
    words.add_tokens([f"<new{n}>" for n in range(20)])
    words.save_pretrained(folder)
    text = "lack 12 tokens that were added to its tokenizer (first: '<new10>')"
    expect(found(folder, models / "base"), "warning", "vocabulary", text)
    edit_json(folder / "tokenizer.json", added_tokens=[])
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]
    vocabulary["vocab"] |= {f"word{n}": n for n in range(360, 380)}
    edit_json(folder / "tokenizer.json", model=vocabulary)
    text = "ids up to 379, its embeddings only 368 rows: the tokenizer belongs to another model"
    expect(found(folder, models / "base"), "error", "vocabulary", text)


def test_other_special_tokens(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    words = tiny.make_tokenizer()
    words.eos_token = "<s>"
    words.save_pretrained(folder)
    expect(found(folder, models / "base"), "warning", "special-tokens", "its eos_token is '<s>', the base's '</s>'")


def test_another_chat_template_needs_a_choice(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    tiny.make_tokenizer(tiny.CHAT).save_pretrained(folder)
    expect(found(folder, models / "base"), "warning", "chat-template", "the base has none; choose")


# ---------------------------------------------------------------------------------------------- generation settings


def generating(folder: Path, base: Path, settings: str = '{"do_sample":false}') -> list[Finding]:
    """Return what is found in own generation settings, if a suite has answers to generate."""
    root, adapted = open_checkpoints(str(folder), str(base), Description(name="it"))
    assert examine_generation([root, *adapted], [PLAN]) == []  # only texts
    plan = replace(PLAN, requests=(Request.of("generate_until", ("the cat", settings)),))
    return examine_generation([root, *adapted], [plan])


def test_generation_settings_other_than_the_bases_are_named(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    assert generating(folder, models / "base") == []
    edit_json(folder / "generation_config.json", max_new_tokens=5, num_beams=2, repetition_penalty=1.0, top_k=7)
    findings = generating(folder, models / "base")
    expect(findings, "warning", "generation", "sets max_new_tokens 5, num_beams 2, its base's nothing: each answers by")
    assert findings[0].text.endswith("; max_new_tokens replaces the limits of all tasks")
    findings = generating(folder, models / "base", '{"do_sample":true}')
    expect(findings, "warning", "generation", "num_beams 2, top_k 7, its base's nothing")
    (finding,) = generating(models / "lora", folder)  # an adapter has its base's
    assert finding.checkpoint == folder.name
    assert finding.text.startswith("its generation configuration sets max_new_tokens 5, num_beams 2; answers obey it")


@pytest.mark.parametrize(("name", "value"), [("stop_strings", ["."]), ("max_time", 3.0), ("num_return_sequences", 2)])
def test_generation_settings_that_cannot_be_obeyed(
    name: str, value: Any, models: Path, copy: Callable[[str], Path]
) -> None:
    folder = copy("full")
    edit_json(folder / "generation_config.json", **{name: value})
    text = f"its generation configuration sets {name} to {value!r}, which cannot be obeyed; remove it there"
    expect(generating(folder, models / "base"), "error", "generation", text)


# ------------------------------------------------------------------------------------------------- windows and logits


def test_prompts_that_are_longer_than_the_window_are_counted(models: Path, tmp_path: Path) -> None:
    rows = [{"query": "the cat sat on the mat " * n, "choices": [" dog", " cat"], "gold": 0} for n in (1, 2, 60, 90)]
    write_task(tmp_path, "long", rows, **CHOICE)
    text = f"name: long\nrole: general\ninclude: {tmp_path}\ntasks: [long]\n"
    (tmp_path / "suite.yaml").write_text(text)
    plan = planning.plan(loading.load(load_suite(tmp_path / "suite.yaml")), Rendering()).plan
    root, (lora,) = open_checkpoints(str(models / "lora"), None, Description())
    (finding,) = examine_windows([root, lora], [plan], Cutter(tmp_path))
    assert (finding.severity, finding.check, finding.checkpoint) == ("warning", "window", "base")
    assert "window is shorter than prompts of suite long: 2 of 4 samples" in finding.text


@pytest.mark.parametrize("how", ["transposed", "scrambled rows", "permuted vocabulary"])
def test_weights_that_load_but_are_wrong(data: Path, tmp_path: Path, how: str) -> None:
    base = data / "models" / "stories260K"
    folder = Path(shutil.copytree(base, tmp_path / "wrong"))
    order = torch.randperm(512, generator=torch.Generator().manual_seed(0))

    def spoil(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if how == "transposed" and tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]:
                tensors[name] = tensor.T
            if how == "scrambled rows" and name.endswith("down_proj.weight"):
                tensors[name] = tensor[order[order < len(tensor)]]
            if how == "permuted vocabulary" and "embed" in name:
                tensors[name] = tensor[order]

    edit_tensors(folder / "model.safetensors", spoil)
    assert [f for f in found(folder, base) if f.severity == "error"] == []
    expect(probed(folder, base), "warning", "collapsed", "bits per byte on ordinary sentences, its base 3.0")


def test_what_cannot_be_scored_is_refused_by_the_probe(models: Path, copy: Callable[[str], Path]) -> None:
    folder = copy("full")
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors["model.norm.weight"].fill_(3e38))
    expect(probed(folder, models / "base"), "error", "finite", "log-likelihoods are NaN or infinite")


def test_an_arm_that_was_not_served_as_asked_is_refused(models: Path) -> None:
    class Deaf:
        """Serves every arm as usual, whatever it was asked for."""

        def __init__(self) -> None:
            self.real = make_scorer(1)

        def score(self, shard: Any) -> Any:
            from dataclasses import replace

            usual = replace(shard, arm=replace(shard.arm, serving=Serving()))
            return replace(self.real.score(usual), shard=shard)

    root, (lora,) = open_checkpoints(str(models / "lora"), None, Description())
    arms = [Arm(root, NUMERICS), Arm(lora, NUMERICS), Arm(lora, NUMERICS, Serving(merged=True))]
    with InProcessExecutor(Deaf) as executor:
        (finding,) = run_probe(executor, arms, Cutter(cache_dir() / "tokens"))
    assert (finding.severity, finding.check, finding.checkpoint) == ("error", "serving", "lora (merged)")
