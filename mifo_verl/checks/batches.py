"""Batches, mini-batches, micro-batches: what has to divide what, and fit where."""

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.verl.critic import has_critic

ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"


def check_batches(run: Run, found: Findings) -> None:
    """The batch splits into mini-batches, and these over the ranks."""
    mini_key, batch = f"{ACTOR}.ppo_mini_batch_size", run.get("data.train_batch_size")
    mini, num_rollouts, ranks = run.get(mini_key), run.get(f"{ROLLOUT}.n"), run.num_ranks
    found.require(
        batch % mini == 0, mini_key, mini, f"a divisor of data.train_batch_size={batch}", "change one of them"
    )
    found.require(
        mini * num_rollouts % ranks == 0,
        mini_key,
        mini,
        f"such that mini-batch x rollout.n = {mini * num_rollouts} splits evenly over {ranks} ranks",
        "change the mini-batch, actor_rollout_ref.rollout.n or trainer.n_gpus_per_node",
    )
    estimator = run.get("algorithm.adv_estimator")
    if any(word in estimator for word in ("grpo", "rloo", "opo", "baseline", "gpg", "gdpo")):
        found.require(
            num_rollouts >= 2,
            f"{ROLLOUT}.n",
            num_rollouts,
            f"at least 2 for {estimator}, whose baseline is the group",
            "the paper's value is 8",
        )
    found.note(f"{batch} prompts x {num_rollouts} rollouts, {batch // mini} updates a step, {ranks} ranks")


def check_micro_batches(run: Run, found: Findings) -> None:
    """Micro-batches are given, and hold the longest sequence."""
    roles = [(ACTOR, "ppo_", "use_dynamic_bsz"), (ROLLOUT, "log_prob_", "log_prob_use_dynamic_bsz")]
    if run.get(f"{ACTOR}.use_kl_loss") is True or run.get("algorithm.use_kl_in_reward") is True:
        roles.append((REF, "log_prob_", "log_prob_use_dynamic_bsz"))
    if has_critic(run.config):
        roles.append(("critic", "ppo_", "use_dynamic_bsz"))
    for role, prefix, dynamic in roles:
        budget = f"{role}.{prefix}max_token_len_per_gpu"
        if run.get(f"{role}.{dynamic}"):
            _check_budget(run, found, role, budget)
        else:
            _check_fixed(run, found, role, f"{role}.{prefix}micro_batch_size")


def _check_budget(run: Run, found: Findings, role: str, key: str) -> None:
    """A micro-batch of a token budget."""
    parallel = run.get(f"{role}.ulysses_sequence_parallel_size") or 1
    budget, of_actor = run.get(key), f"{ACTOR}.ppo_max_token_len_per_gpu"
    if role != ACTOR and found.has_error(of_actor) and budget == run.get(of_actor):
        return  # it follows the actor's
    rule = f"such that a sequence of data.max_prompt_length + data.max_response_length = {run.max_tokens} tokens fits"
    found.require(run.max_tokens <= budget * parallel, key, budget, rule, "make it larger, or the lengths smaller")


def _check_fixed(run: Run, found: Findings, role: str, key: str) -> None:
    """A micro-batch of a number of rows."""
    old, new = run.get(key), run.get(f"{key}_per_gpu")
    cure = f"write {key}_per_gpu=<rows>, or {role}.{'log_prob_' if 'log_prob' in key else ''}use_dynamic_bsz=true"
    found.require(not (old and new), key, old, f"left out where {key}_per_gpu={new} is set", "it is deprecated")
    found.require(
        bool(old or new), f"{key}_per_gpu", new, "set, which it must be set to where the batch is not dynamic", cure
    )
    if role in (ACTOR, "critic") and new:
        rows = run.get(f"{role}.ppo_mini_batch_size") * run.get(f"{ROLLOUT}.n") // run.num_ranks
        rule = f"a divisor of a rank's {rows} rows of a mini-batch"
        found.require(rows % new == 0, f"{key}_per_gpu", new, rule, "make it smaller")
