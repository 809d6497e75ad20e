"""Single settings that are wrong: what is said, and that its cure, typed as it stands, is one."""

import re
import shlex
from pathlib import Path

import pytest

from mifo_verl.checks import machine, ranges, steps, unread
from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.checks.unread import UNREAD
from mifo_verl.compose import ConfigError, compose_config, known_settings

ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"
CHECKS = (
    ranges.check_settings,
    unread.check_read,
    ranges.check_kinds,
    ranges.check_ranges,
    machine.check_trackers,
    machine.check_folder,
    steps.check_resume,
)
# an override, a piece of what is said of it, and what it becomes if the cure is followed ("" where it is left out)
CASES = [
    ("+data.foo=1", "data.foo=1 is read neither by verl nor by mifo_verl", ""),
    ("+foo=1", "foo=1 is read neither by verl nor by mifo_verl", ""),
    ("+trainer.total_steps=5", "is read neither by verl", ""),
    ("+data.max_samples=16", "did you mean data.val_max_samples?", ""),
    (f"+{ACTOR}.foo=2", f"verl has no such setting in {ACTOR}; leave it out", ""),
    (f"+{ROLLOUT}.stop=[a]", f"verl has no such setting in {ROLLOUT}", ""),
    (f"+{ROLLOUT}.val_kwargs.temprature=1", "no such setting", f"{ROLLOUT}.val_kwargs.temperature=1"),
    ("+data.train_batch_size=16", "without the plus", "data.train_batch_size=16"),
    ("+method=mifo", "without the plus", "method=mifo"),
    ("+trainer.logger.foo=1", "of the kind of the setting that is there", ""),
    ("data.return_raw_chat=false", "is read by nothing of this trainer", ""),
    ("trainer.balance_batch=false", "is read by nothing of this trainer", ""),
    (f"{ACTOR}.freeze_vision_tower=true", "is read by nothing of this trainer", ""),
    ("~x.y", "x.y is not; leave it out", ""),
    ("~trainer", "~trainer must be left out", ""),
    ("~env", "~env must be left out", ""),
    ("--seed=3", "without the dashes", "seed=3"),
    ("--config-name=foo", "it is no setting", ""),
    ("--info", "it is no setting", ""),
    ("hydra.run.dir=/tmp/x", "nothing reads hydra", ""),
    ("run_dir=", "one text that is not empty", ""),
    ("run_dir=null", "one text that is not empty", ""),
    ("run_dir=[a,b]", "one text that is not empty", ""),
    ("name=null", "one text that is not empty", ""),
    ("run_dir=/tmp/a,b", "must be one value", 'run_dir="/tmp/a,b"'),
    ("run_dir=/tmp/a(b)", "must be quoted", 'run_dir="/tmp/a(b)"'),
    ("run_dir=/tmp/${oc.env:NO_SUCH_VARIABLE}", "Environment variable 'NO_SUCH_VARIABLE' not found", ""),
    ("run_dir=/tmp/${eval:1}", "run_dir=/tmp/${eval:1} must refer to what is there", ""),
    ("trainer.default_local_dir=/etc/passwd", "a folder that can be written", ""),
    ("trainer.logger=True", "trainer.logger=True must be one of console", "trainer.logger=[console]"),
    ("trainer.logger=null", "trainer.logger=None must be a tracker", "trainer.logger=[console]"),
    ("trainer.save_freq=null", "trainer.save_freq=None must be a value", ""),
    ("data.shuffle=null", "data.shuffle=None must be a value", ""),
    (
        "trainer.resume_from_path=None",
        "as YAML writes it|which is how YAML writes None",
        "trainer.resume_from_path=null",
    ),
    (f"{ROLLOUT}.temperature=inf", "temperature=inf must be a finite number", ""),
    (f"{ACTOR}.entropy_coeff=nan", "entropy_coeff=nan must be a finite number", ""),
    ("mifo.sft.lr=inf", "mifo.sft.lr=inf must be a finite number", ""),
    (f'{ROLLOUT}.temperature="1.0"', "temperature='1.0' must be a number without quotes", f"{ROLLOUT}.temperature=1.0"),
    (f"{ACTOR}.use_kl_loss=yes", "use_kl_loss=yes must be true or false", f"{ACTOR}.use_kl_loss=true"),
    (f"{ACTOR}.use_kl_loss=0", "use_kl_loss=0 must be true or false", f"{ACTOR}.use_kl_loss=false"),
    (f'{ACTOR}.use_kl_loss="False"', "use_kl_loss=False must be true or false", f"{ACTOR}.use_kl_loss=false"),
    ('trainer.save_freq="5"', "save_freq=5 must be a whole number", "trainer.save_freq=5"),
    ("trainer.save_freq=5.0", "save_freq=5.0 must be a whole number", "trainer.save_freq=5"),
    (f"{ROLLOUT}.top_k=-5", "top_k=-5 must be -1 or", ""),
    ("trainer.resume_from_path=/x/global_step_3", "is read with trainer.resume_mode=resume_path alone", ""),
    ("seed=4294967296", "below 2^32", "seed=0"),
    ("\ufeffseed=1", "must be typed in plain letters", "seed=1"),
    ("seed=１", "must be typed in plain letters", "seed=1"),
    ("seed＝1", "must be typed in plain letters", "seed=1"),
    ("mifo.sft.lr=1e−6", "must be typed in plain letters", "mifo.sft.lr=1e-6"),
    ("trainer.total_training_steps=1,000", "for one number", "trainer.total_training_steps=1000"),
    ("+mifo/gate=any", "without the plus", "mifo/gate=any"),
    ("algorithm=grpo", "must be a setting inside the group, not the group", ""),
    (
        "actor=x",
        "did you mean actor_rollout_ref.actor?); choose one inside: the settings of actor_rollout_ref.actor",
        "",
    ),
    ("data.batch_size=8", "did you mean data.train_batch_size?", "data.train_batch_size=8"),
    ("save_steps=10", "did you mean trainer.save_freq?", "trainer.save_freq=10"),
    ("method.name=x", "leave it out", ""),
    ("seed=range(3)", "write mifo sweep 'seed=range(3)' ... for a run of each", ""),
    ("seed=choice(1,2)", "write mifo sweep 'seed=choice(1,2)' ... for a run of each", ""),
    ("env=3", "must be a setting inside the group, not the group; choose one: +env.<NAME>=<value>", ""),
    ("env=null", "must be a setting inside the group, not the group; choose one: +env.<NAME>=<value>", ""),
    ("trainer=3", "must be a setting inside the group, not the group; choose one: the settings of trainer are", ""),
    ("data=null", "must be a setting inside the group, not the group; choose one: the settings of data", ""),
    (
        f"{ACTOR}.optim=adam",
        "must be a setting inside the group, not the group; choose one: the settings of actor_rollout_ref.actor.optim",
        "",
    ),
    ("mifo.sft=[1]", "must be a setting inside the group, not the group; choose one: the settings of mifo.sft", ""),
    ("env.X=1", "because env takes any name", "+env.X=1"),
    (f"{ROLLOUT}.engine_kwargs.vllm.foo=1", "takes any name", f"+{ROLLOUT}.engine_kwargs.vllm.foo=1"),
    (f"{ACTOR}.grad_clip=1.0", "must be left out, because nothing reads it", f"{ACTOR}.optim.clip_grad=1.0"),
    ("data.reward_fn_key=x", "is read by nothing of this trainer", ""),
    ("actor_rollout_ref.model.lora.freeze_vision_model=false", "is read by nothing of this trainer", ""),
    ("mifo.token_selector.share=0", "choose another one: the settings of mifo.token_selector are", ""),
]


def said_of(*overrides: str) -> list[str]:
    """What is said of the quick start with these overrides, without its own warnings."""
    given = ["experiment=quickstart", *overrides]
    try:
        run, found = Run(compose_config(given).node, given), Findings()
    except ConfigError as error:
        return error.errors
    for check in CHECKS:
        with found.of(check.__name__):
            check(run, found)
    return [str(finding) for finding in found.errors() + found.warnings()]


@pytest.mark.parametrize(("override", "piece", "cured"), CASES, ids=[case[0] for case in CASES])
def test_a_wrong_setting_is_named_and_its_cure_helps(override, piece, cured):
    said = said_of(override)
    assert len(said) == 1 and re.search("|".join(map(re.escape, piece.split("|"))), said[0]), "\n".join(said)
    cure = said[0].partition("; ")[2]
    if cured:
        assert cured in shlex.split(re.split(r" for one text| with |, ", cure.partition("write ")[2])[0])
        assert said_of(cured) == []


def test_what_verl_or_a_free_node_reads_is_added_in_silence():
    free = (
        f"+{ROLLOUT}.engine_kwargs.vllm.foo=1",
        "+actor_rollout_ref.model.override_config.foo=2",
        f"+{ACTOR}.optim.override_optimizer_config.foo=1",
        "+reward.custom_reward_function.reward_kwargs.x=1",
        "+ray_kwargs.ray_init.dashboard_port=8265",
        "+env.FOO=1",
        "++data.train_batch_size=16",
        "~env.OMP_NUM_THREADS",
        "critic.optim=${actor_rollout_ref.actor.optim}",
        f"{ROLLOUT}.profiler=null",
    )
    assert said_of(*free) == []


@pytest.mark.parametrize("key", UNREAD)
def test_what_nothing_reads_is_there_and_verls_trainer_does_not_name_it(key):
    assert key in known_settings()
    word = key.rpartition(".")[2]
    verl = Path(str(pytest.importorskip("verl").__file__)).parent
    places = ("trainer/ppo/v1/trainer_base.py", "trainer/ppo/v1/trainer_sync.py", "workers/engine_workers.py")
    for place in places:
        assert not re.search(rf"\bconfig\.(\w+\.)*{word}\b|get\(\s*[\"']{word}[\"']", (verl / place).read_text())
