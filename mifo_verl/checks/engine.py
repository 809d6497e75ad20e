"""What the trainer, its engine and its rollout need of each other."""

from importlib.util import find_spec

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.method.constraint import NoConstraint
from mifo_verl.method.schedule import WhenFull

ACTOR, MODEL, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.model", "actor_rollout_ref.rollout"
PACKAGES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}


def check_trainer(run: Run, found: Findings) -> None:
    """Our trainer runs, in verl's newer loop."""
    mode, new = run.get("trainer.v1.trainer_mode"), run.get("trainer.use_v1")
    found.require(
        mode == "mifo",
        "trainer.v1.trainer_mode",
        mode,
        "mifo, or verl's own trainer would run",
        "use python -m verl.trainer.main_ppo for that",
    )
    found.require(
        new is True, "trainer.use_v1", new, "true, because verl's older trainer knows no SFT phases", "leave it out"
    )


def check_engine(run: Run, found: Findings) -> None:
    """FSDP2, with float32 master weights where there is a mask."""
    actor = run.config.actor_rollout_ref.actor
    found.require(
        actor.strategy == "fsdp2",
        f"{ACTOR}.strategy",
        actor.strategy,
        "fsdp2, because masks, theta_start and the budget are taken from its shards",
        f"use {ACTOR}.strategy=fsdp2",
    )
    if not isinstance(run.mifo.constraint, NoConstraint):
        found.require(
            actor.fsdp_config.model_dtype in ("fp32", "float32"),
            f"{ACTOR}.fsdp_config.model_dtype",
            actor.fsdp_config.model_dtype,
            "fp32, because importance is taken from float32 master weights (bf16 hides most RL updates)",
            f"use {ACTOR}.fsdp_config.model_dtype=fp32, or mifo/constraint=none",
        )
    if run.trains_on_demonstrations:
        fused = run.get(f"{MODEL}.use_fused_kernels")
        found.require(
            not fused,
            f"{MODEL}.use_fused_kernels",
            fused,
            "false, because fused kernels give no logits to take the tokens' entropy from",
            "use mifo/schedule=never, or switch them off",
        )
    if run.mifo.sft.surplus == "keep" and not isinstance(run.mifo.schedule, WhenFull):
        found.error("mifo.sft.surplus=keep must go with mifo/schedule=when_full, which says what surplus is; use it")


def check_parallel(run: Run, found: Findings) -> None:
    """Sequence and tensor parallelism."""
    ulysses, tensor = f"{ACTOR}.ulysses_sequence_parallel_size", f"{ROLLOUT}.tensor_model_parallel_size"
    size = run.get(ulysses)
    if size > 1:
        removed = run.get(f"{MODEL}.use_remove_padding") is True
        found.require(removed, ulysses, size, f"1 where {MODEL}.use_remove_padding=False", "change one of them")
        found.require(run.num_ranks % size == 0, ulysses, size, f"a divisor of the {run.num_ranks} ranks", "change it")
    ranks = run.num_ranks
    split = found.require(
        ranks % run.get(tensor) == 0, tensor, run.get(tensor), f"a divisor of the {ranks} ranks", "make it smaller"
    )
    heads = run.model_config.get("num_attention_heads")
    if split and isinstance(heads, int) and run.get(f"{ROLLOUT}.name") != "transformers":
        rule = f"a divisor of the model's {heads} attention heads"
        found.require(heads % run.get(tensor) == 0, tensor, run.get(tensor), rule, "make it smaller")


def check_rollout(run: Run, found: Findings) -> None:
    """The rollout server is installed and fits the device."""
    name, device = run.get(f"{ROLLOUT}.name"), run.get("trainer.device")
    package = PACKAGES.get(name)
    if package:
        found.require(
            find_spec(package) is not None,
            f"{ROLLOUT}.name",
            name,
            f"installed, and there is no package {package} here",
            "pip install -e '.[gpu]', or hardware=cpu for the rollout without it",
        )
    attention = run.get(f"{MODEL}.override_config.attn_implementation")
    if device == "cpu":
        found.require(
            attention in ("sdpa", "eager"),
            f"{MODEL}.override_config.attn_implementation",
            attention,
            "sdpa or eager on a CPU",
            "use sdpa, as hardware=cpu does",
        )
    if device == "cuda":
        found.require(
            name != "transformers",
            "trainer.device",
            device,
            f"cpu where {ROLLOUT}.name=transformers, which serves on CPUs",
            "use hardware=gpu for the settings of both",
        )
