"""FLOPs by hand: 2N a token forward, 6N with gradient."""

from mifo_verl.run.compute import RlCost, multiplying_weights, sft_flops

N = 1000


def test_an_rl_step_by_hand():
    # 20 tokens rolled out, passed once for the old log-probs, trained on once: 20 * 1000 * (2 + 2 + 6)
    assert RlCost(N, forwards=1, trainings=1).flops(trained_tokens=20, generated_tokens=20) == 200_000


def test_a_reference_a_critic_and_epochs_cost_what_they_pass():
    # rollouts 30 * 2; old, reference and values 3 * 2, two epochs of the actor and one of the critic 3 * 6, on 20
    assert RlCost(N, forwards=3, trainings=3).flops(20, 30) == N * (60 + 20 * (6 + 18))


def test_an_sft_update_by_hand():
    assert sft_flops(N, tokens=40) == 240_000


def test_the_embedding_multiplies_only_where_it_is_the_head_too():
    assert multiplying_weights([("embedding", 5), ("q", 10), ("norm", 1)]) == 16
    assert multiplying_weights([("embedding", 5), ("q", 10), ("norm", 1), ("head", 5)]) == 16
    assert multiplying_weights(iter([("embedding", 5), ("head", 7)])) == 7
