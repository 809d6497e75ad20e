"""Updates in a row that verl has skipped are counted one by one, for actor and critic, over mini-batches and steps."""

import math
from itertools import chain

import pytest
from verl.trainer.ppo.v1.utils import MetricsAggregator
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import append_to_dict

from mifo_verl.loop.events import UpdateMade
from mifo_verl.loop.state import SftProgress
from mifo_verl.run.watchdog import CannotGoOn
from mifo_verl.verl.engine import MifoCriticEngine, MifoEngine
from mifo_verl.verl.records import sft_metrics
from mifo_verl.verl.skipped_updates import MAX_SKIPPED, SkippedUpdatesMixin, require_updates

NAN, INF = math.nan, math.inf


class Verls:
    """What verl's train_batch leaves of an update whose gradient had this norm."""

    def train_batch(self, data, loss_function):
        return {"metrics": {"grad_norm": data}}


class Engine(SkippedUpdatesMixin, Verls):
    pass


def step(engine: Engine, norms: list[float], num_ranks: int = 2) -> float:
    """The metric of a step with these mini-batches, gathered and reduced as verl does it."""
    metrics = {}
    for norm in norms:
        found = engine.train_batch(norm, None)["metrics"][MAX_SKIPPED]
        gathered = [found] * num_ranks  # allgather_dict_into_dict
        append_to_dict(metrics, {MAX_SKIPPED: list(chain.from_iterable(gathered))})
    reduced = reduce_metrics({f"actor/{name}": value for name, value in metrics.items()})
    aggregator = MetricsAggregator()
    aggregator.add_step_metrics(reduced, sample_count=8)
    return aggregator.get_aggregated_metrics()[f"actor/{MAX_SKIPPED}"]


def test_one_skipped_of_many_in_every_step_is_never_more_than_one_in_a_row():
    engine = Engine()
    assert [step(engine, [1.0] * 15 + [NAN]) for _ in range(2)] == [1, 1]
    assert [step(engine, [0.5, NAN, 1.0]) for _ in range(4)] == [1, 1, 1, 1]


def test_all_skipped_in_one_step_are_so_many():
    assert step(Engine(), [NAN, INF] * 8) == 16


def test_a_row_goes_on_over_steps_and_ends_with_an_update_that_was_made():
    engine = Engine()
    assert step(engine, [1.0, NAN, -INF]) == 2
    assert step(engine, [NAN, 1.0, NAN]) == 3
    assert step(engine, [1.0, 1.0]) == 0


def test_an_output_without_a_gradient_norm_is_left_as_it_is():
    class Silent:
        def train_batch(self, data, loss_function):
            return {"metrics": {}}

    class Rank(SkippedUpdatesMixin, Silent):
        pass

    assert Rank().train_batch(None, None) == {"metrics": {}}


def test_actor_and_critic_count():
    assert issubclass(MifoEngine, SkippedUpdatesMixin) and issubclass(MifoCriticEngine, SkippedUpdatesMixin)
    for engine in (MifoEngine, MifoCriticEngine):
        assert engine.train_batch is SkippedUpdatesMixin.train_batch


@pytest.mark.parametrize("part", ["actor", "critic", "mifo/sft"])
def test_one_more_in_a_row_than_is_allowed_ends_the_run(part):
    require_updates({}, 3)
    require_updates({f"{part}/{MAX_SKIPPED}": 3, "actor/grad_norm": NAN}, 3)
    with pytest.raises(CannotGoOn, match="the gradients of 4 updates in a row were not finite"):
        require_updates({f"{part}/{MAX_SKIPPED}": 4.0}, 3)


def phase(*skipped: int, mask: dict | None = None) -> SftProgress:
    counts = dict.fromkeys(("prompt_tokens", "kept_tokens", "demonstrations", "flops", "interval", "step"), 1)
    numbers = {"entropy": 0.5, "loss": 1.0, "grad_norm": 1.0, "kept_share": 0.5, "frozen_share": 0.0, "buffer_size": 4}
    made = [
        UpdateMade(update=1, ledger_sha256="", skipped_updates=n, response_tokens=2, **counts, **numbers)
        for n in skipped
    ]
    return SftProgress([], 4, mask, {}, updates=made)


def test_an_sft_phase_reports_its_longest_row():
    assert sft_metrics(phase(0, 1, 2, 0, 0))[f"mifo/sft/{MAX_SKIPPED}"] == 2


def test_a_phase_that_froze_nothing_has_no_threshold_for_the_trackers():
    found = sft_metrics(phase(0, mask={"frozen_share": 0.0, "threshold": None}))
    assert found["mifo/sft/frozen_share"] == 0.0 and "mifo/sft/threshold" not in found
    assert sft_metrics(phase(0, mask={"frozen_share": 0.5, "threshold": 0.25}))["mifo/sft/threshold"] == 0.25
