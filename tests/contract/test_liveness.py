"""Only an actor that has died, or stays stopped, is lost; silent ones are looked at together. Ray itself is scripted."""

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from mifo_verl.run import liveness, processes
from mifo_verl.run.liveness import Liveness, Lost
from mifo_verl.run.processes import Look, Place, look_at_all


class Method:
    def __init__(self, answer) -> None:
        self.asked = 0
        self._answer = answer

    def remote(self, *_):
        self.asked += 1
        return self._answer()


class Actor:
    """An actor whose answers are what it is given: None where none comes, an exception where Ray raises it."""

    def __init__(self, where=None) -> None:
        self.answer = True
        self.__ray_ready__ = Method(lambda: self)
        self.__ray_call__ = Method(lambda: where)


@pytest.fixture(autouse=True)
def ray(monkeypatch):
    """Ray's two calls on what Actor.remote() has returned."""

    class Ray:
        @staticmethod
        def wait(refs, num_returns=1, timeout=None):
            return [ref for ref in refs if ref.answer is not None], []

        @staticmethod
        def get(ref, timeout=None):
            if isinstance(ref, Place):
                return ref
            answer = getattr(ref, "answer", None)
            if answer is None:
                raise GetTimeoutError
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(liveness, "ray", Ray)


@pytest.fixture
def watched():
    said = []

    def make(**actors):
        watched_actors = Liveness(stopped_seconds=60.0, emit=lambda *event: said.append(event))
        watched_actors.watch(actors, now=0.0)
        return watched_actors

    return make, said


def unavailable() -> Exception:
    return ActorUnavailableError("the network is down", b"\0" * 16)


def test_an_actor_that_is_unavailable_for_the_moment_is_asked_again_and_not_lost(watched):
    make, said = watched
    rank = Actor()
    watched_actors = make(**{"rank 0": rank})
    rank.answer = unavailable()
    for now in (1.0, 2.0, 3.0):
        watched_actors.check(now, usual_step=10.0, patience=20.0)
    watched_actors.require_alive()
    assert rank.__ray_ready__.asked == 5 and said == []
    watched_actors.check(25.0, usual_step=10.0, patience=20.0)  # it owes an answer for more than two steps
    assert said == [("silent", "SILENT: rank 0 has not answered for 25 s (its node says nothing of it)")]
    rank.answer = True
    watched_actors.check(26.0, usual_step=10.0, patience=20.0)
    assert said[1:] == [("answers", "rank 0 answers again")]


def test_an_actor_that_has_died_is_lost(watched):
    make, _ = watched
    rank = Actor()
    watched_actors = make(**{"rank 0": rank})
    rank.answer = ActorDiedError()
    with pytest.raises(Lost, match="rank 0 has died"):
        watched_actors.check(1.0, usual_step=10.0, patience=20.0)
    with pytest.raises(Lost, match="rank 0 has died"):
        watched_actors.require_alive()


def test_all_that_are_silent_are_looked_at_in_one_go(watched, monkeypatch):
    make, said = watched
    places = [Place(f"node {number}", f"host{number}", number, 0.0) for number in range(3)]
    actors = {f"rank {number}": Actor(where) for number, where in enumerate(places)}
    watched_actors = make(**actors)
    for actor in actors.values():
        actor.answer = None
    asked = []

    def looks(wanted):
        asked.append(list(wanted))
        return {places[0]: Look("running", 12.0), places[1]: Look("stopped")}

    monkeypatch.setattr(liveness, "look_at_all", looks)
    watched_actors.check(25.0, usual_step=10.0, patience=20.0)
    assert asked == [places]
    assert [(kind, text.split(" has ")[0]) for kind, text in said] == [
        ("silent", "SILENT: rank 0"),
        ("stopped", "STOPPED: rank 1"),
        ("silent", "SILENT: rank 2"),
    ]
    assert "running, 12 s of CPU" in said[0][1] and "its node says nothing of it" in said[2][1]


def test_nodes_are_waited_for_together_and_one_that_does_not_answer_hides_no_other(monkeypatch):
    waits, tasks = [], {}

    class Ray:
        @staticmethod
        def get_runtime_context():
            return type("Context", (), {"get_node_id": staticmethod(lambda: "here")})

        @staticmethod
        def wait(refs, num_returns, timeout):
            waits.append((len(refs), num_returns, timeout))
            return [ref for ref in refs if ref != "task of far"], ["task of far"]

        @staticmethod
        def get(task):
            return {where: Look("sleeping") for where in tasks[task]}

    def task_on(node, function, there):
        tasks[f"task of {node}"] = there
        return f"task of {node}"

    monkeypatch.setattr(processes, "ray", Ray)
    monkeypatch.setattr(processes, "task_on", task_on)
    near = [Place("near", "b", number, 0.0) for number in (1, 2)]
    far = [Place("far", "c", number, 0.0) for number in (1, 2)]
    gone = Place("here", "a", 999_999_999, 0.0)
    seen = look_at_all([*near, *far, gone])
    assert waits == [(2, 2, processes._NODE_SECONDS)]
    assert seen == {near[0]: Look("sleeping"), near[1]: Look("sleeping"), gone: Look("gone")}
