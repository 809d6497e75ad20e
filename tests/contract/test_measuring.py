"""What the trainer and its engine measure, where a measurement has to be left out or fails."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from mifo_verl.compose import compose_config
from mifo_verl.config import build_config
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.probes.data import measured_on
from mifo_verl.probes.types import Before, HeldOut
from mifo_verl.types import BufferEntry, SftExample
from mifo_verl.verl import engine as engines
from mifo_verl.verl.checkpoint import ControllerState, SftProgress
from mifo_verl.verl.trainer import MifoTrainer


def test_without_a_start_of_the_interval_no_kl_to_it_is_taken(monkeypatch):
    monkeypatch.setattr(PPOTrainer, "_compute_old_log_prob", lambda self, batch, metrics: batch)
    trainer = object.__new__(MifoTrainer)
    vars(trainer).update(
        watchdog=SimpleNamespace(stage=lambda *_: nullcontext()),
        _stop_here=lambda: None,
        probe=SimpleNamespace(kl_to_start=True),
        timing_raw={},
        _kl_to_start=lambda batch: (0.5, 3),
    )
    found = []
    for trainer._has_start in (False, True):
        metrics: dict[str, float] = {}
        trainer._compute_old_log_prob("batch", metrics)
        found.append(metrics)
    assert found == [{}, {"mifo/rl/kl_to_start": 0.5, "mifo/rl/kl_tokens": 3}]


def test_a_pass_that_fails_leaves_no_logits_behind(monkeypatch):
    monkeypatch.setattr(engines.tu, "get_non_tensor_data", lambda *_, **__: True)
    engine = object.__new__(engines.MifoEngine)
    engine.interval = SimpleNamespace(start=[], model=SimpleNamespace(swapped=lambda _: nullcontext()))
    passes = []

    def fail_in_pass(number):
        def forward_step(self, *_):
            passes.append(number)
            self._start_logits = "logits"
            if len(passes) == number:
                raise MemoryError
            return None, {"model_output": {"log_probs": "x"}}

        return forward_step

    for number in (1, 2):
        passes.clear()
        monkeypatch.setattr(FSDPEngineWithLMHead, "forward_step", fail_in_pass(number))
        with pytest.raises(MemoryError):
            engine.forward_step(None, None, True)
        assert engine._start_logits is None and engine._start_output == {}


def test_the_hard_prompts_asked_are_those_that_the_phase_takes():
    asked = []
    trainer = object.__new__(MifoTrainer)
    vars(trainer).update(
        probe=SimpleNamespace(is_due=lambda _: True),
        interval=1,
        global_steps=1,
        mifo=SimpleNamespace(sft_limit=2),
        buffer=DemonstrationBuffer(),
        probes=SimpleNamespace(before_sft=asked.extend, ask_before=lambda _: None),
        checkpoint_manager=SimpleNamespace(update_weights=lambda _: None, sleep_replicas=lambda: None),
        _measure=lambda measure: measure(),
    )
    for name in ("a", "b", "c"):
        trainer.buffer.put(BufferEntry(None, SftExample(name, (1,), (2,), "")))
    trainer._before_sft()
    assert [entry.example.prompt_id for entry in asked] == ["a", "b"] and len(trainer.buffer) == 3


def resumed(state: ControllerState, measured_on: str = "these"):
    """(probes of a run that takes this state up, what it said)."""
    trainer, said = object.__new__(MifoTrainer), []
    trainer.records = SimpleNamespace(event=lambda kind, text: said.append(text))
    trainer.probes = SimpleNamespace(solved=SimpleNamespace(ids=[]), cross_entropy_start=None, uncounted_tokens=0)
    trainer._measured_on = measured_on
    trainer.buffer = DemonstrationBuffer()
    trainer._restore(state)
    return trainer, said


def state_measured_on(digest: str, cross_entropy: float | None = 0.5) -> ControllerState:
    sft = SftProgress([], 0, None, {}, Before(1.0, 2.0, [], []))
    return ControllerState(3, 0, 0, 0.0, [], {}, sft, ["solved"], cross_entropy, measured_on=digest)


def test_a_resume_goes_on_with_what_was_measured_on_the_same_data_and_drops_the_rest_with_a_word():
    same, said = resumed(state_measured_on("these"))
    assert same.probes.cross_entropy_start == 0.5 and same._sft.before is not None and said == []
    other, said = resumed(state_measured_on("others"))
    assert other.probes.cross_entropy_start is None and other._sft.before is None
    assert other.probes.solved.ids == ["solved"] and len(said) == 1 and "other data or settings" in said[0]
    nothing, said = resumed(ControllerState(1, 0, 0, 0.0, [], {}))
    assert nothing.probes.cross_entropy_start is None and said == []


@pytest.mark.parametrize("measured_on", ["these", "others"])
def test_tokens_that_no_record_counts_yet_are_spent_whatever_a_resume_drops(measured_on):
    state = ControllerState(1, 2, 0, 0.0, [], {}, cross_entropy_start=0.5, measured_on="these", uncounted_tokens=6)
    assert resumed(state, measured_on)[0].probes.uncounted_tokens == 6


def test_data_and_sampling_settings_are_told_apart_and_demonstrations_by_their_text():
    examples = [SftExample("d", (1,), (2,), "a"), SftExample("d", (1,), (2,), "b"), SftExample("d", (3,), (2,), "a")]
    rows = [{"prompt_id": "v0", "data_source": "x"}]
    made = [measured_on(HeldOut(rows, [example], {}.get), {"n": 1}) for example in examples]
    made += [measured_on(HeldOut([], [examples[0]], {}.get), {"n": 1})]
    made += [measured_on(HeldOut(rows, [examples[0]], {}.get), {"n": 2})]
    assert len(set(made)) == 5
    assert made[0] == measured_on(HeldOut(rows, [examples[0]], {}.get), {"n": 1})


@pytest.mark.parametrize(
    "change",
    [
        "mifo.probe.around_sft=false",
        "mifo.probe.rollouts=3",
        "mifo.probe.solved_accuracy=1/2",
        "actor_rollout_ref.rollout.val_kwargs.temperature=0.5",
        "actor_rollout_ref.rollout.val_kwargs.n=3",
        "data.max_response_length=9",
    ],
)
def test_every_setting_that_the_values_depend_on_is_among_those_asked_with(change):
    found = []
    for overrides in ([], [change]):
        trainer = object.__new__(MifoTrainer)
        trainer.config = compose_config(["experiment=quickstart", *overrides]).node
        trainer.probe = build_config(OmegaConf.to_container(trainer.config.mifo, resolve=True)).probe
        found.append(measured_on(HeldOut([], [], {}.get), trainer._asked_with()))
    assert found[0] != found[1]
