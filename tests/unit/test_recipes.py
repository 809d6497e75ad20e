"""Every recipe reads the real schema of its set: field names and shapes as published, a few records each."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mifo_verl.data.demonstrations import prompt_id_of
from mifo_verl.rewards import gym, math
from mifo_verl.tools.prepare.recipe import INSTRUCTION, Recipe, Row, question_of
from mifo_verl.tools.prepare.recipes import RECIPES
from mifo_verl.tools.prepare.recipes.procedural import ReasoningGym, arithmetic_steps, split_of, written_steps
from mifo_verl.tools.prepare.recipes.published import with_tags
from mifo_verl.tools.prepare.recipes.srl import steps_of
from mifo_verl.tools.prepare.sources import Dropped


def made(recipe: Recipe, path: Path, *records: dict[str, Any]) -> list[Row | Dropped]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return list(recipe.rows("train", str(path)))


def good(rows: list[Row | Dropped]) -> list[Row]:
    return [row for row in rows if not isinstance(row, Dropped)]


def reasons(rows: list[Row | Dropped]) -> list[str]:
    return [row.reason for row in rows if isinstance(row, Dropped)]


OPENR1 = {
    "data_source": "openr1",
    "prompt": [{"content": "Think first.", "role": "system"}, {"content": "What is 1+1?", "role": "user"}],
    "target": [{"content": "<think>\n1+1=2\n</think>\n\nIt is \\boxed{2}.", "role": "assistant"}],
    "ability": "math",
    "reward_model": {"ground_truth": "2", "style": "rule"},
    "extra_info": {"index": -1, "split": "default"},
}


def test_openr1_keeps_prompt_target_and_answer_and_names_the_prompt_by_its_hash(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([OPENR1, OPENR1 | {"target": None}]), tmp_path / "a.parquet")
    rows = good(list(RECIPES["openr1"]().rows("train", str(tmp_path / "a.parquet"))))
    assert rows[0] == OPENR1 | {
        "extra_info": {"split": "train", "index": 0, "level": None, "entry": None},
        "prompt_id": prompt_id_of(OPENR1),
    }
    assert rows[1]["target"] is None
    assert math.is_correct(rows[0]["target"][0]["content"], "2", require_think=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": []}, "no question"),
        ({"prompt": "text"}, "no question"),
        ({"prompt": [{"role": "user", "content": None}]}, "no question"),
        ({"reward_model": None}, "no answer"),
        ({"reward_model": {"ground_truth": " "}}, "no answer"),
        ({"reward_model": {"ground_truth": ["2"]}}, "no answer"),
    ],
)
def test_openr1_drops_what_cannot_be_trained_on(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    assert reasons(made(RECIPES["openr1"](), tmp_path / "a.jsonl", OPENR1 | change)) == [reason]


@pytest.mark.parametrize("target", [[], [{"role": "user", "content": "x"}], [{"role": "assistant", "content": " "}]])
def test_openr1_takes_a_malformed_target_for_none(tmp_path: Path, target: Any) -> None:
    assert good(made(RECIPES["openr1"](), tmp_path / "a.jsonl", OPENR1 | {"target": target}))[0]["target"] is None


def test_math_takes_the_answer_from_its_field_or_from_the_last_box(tmp_path: Path) -> None:
    hendrycks = {
        "problem": "What is half of 1?",
        "level": "Level 5",
        "type": "Algebra",
        "solution": r"First $\boxed{1}$, then $\boxed{\frac{1}{2}}$.",
    }
    math500 = {
        "problem": "What is half of 1?",
        "solution": r"It is $\boxed{\frac{1}{2}}$.",
        "answer": r"\frac{1}{2}",
        "subject": "Algebra",
        "level": 3,
        "unique_id": "test/algebra/1.json",
    }
    ours = {"id": "o-1", "question": "q", "answer": r"$\boxed{\frac{1}{2 n}}$", "source": "olympiad"}
    rows = good(made(RECIPES["math"](), tmp_path / "a.jsonl", hendrycks, math500, ours))
    assert [row["reward_model"]["ground_truth"] for row in rows] == [r"\frac{1}{2}", r"\frac{1}{2}", r"\frac{1}{2 n}"]
    assert [row["extra_info"]["level"] for row in rows] == [5, 3, None]
    assert [row["data_source"] for row in rows] == ["math", "math", "olympiad"]
    assert [row["prompt_id"] for row in rows[1:]] == ["test/algebra/1.json", "o-1"]
    assert rows[0]["prompt_id"] == prompt_id_of(rows[0] | {"prompt_id": None})
    assert rows[0]["target"] == [{"role": "assistant", "content": hendrycks["solution"]}] and rows[2]["target"] is None
    assert reasons(made(RECIPES["math"](), tmp_path / "b.jsonl", {"problem": "q", "solution": "no box"})) == [
        "no answer"
    ]


def test_deepmath_takes_one_of_three_solutions_and_gives_it_its_opening_tag(tmp_path: Path) -> None:
    record = {
        "question": "What is 1+1?",
        "final_answer": "2",
        "difficulty": 4.5,
        "topic": "Mathematics -> Algebra",
        "r1_solution_1": "Okay.\n</think>\n\n\\boxed{2}",
        "r1_solution_2": "<think>\nHm.\n</think>\n\\boxed{3}",
        "r1_solution_3": "",
    }
    rows = [good(made(RECIPES["deepmath"](trace=n), tmp_path / "a.jsonl", record))[0] for n in (1, 2, 3)]  # type: ignore[call-arg]
    assert rows[0]["target"][0]["content"] == "<think>\nOkay.\n</think>\n\n\\boxed{2}"
    assert rows[1]["target"][0]["content"] == "<think>\nHm.\n</think>\n\\boxed{3}"
    assert rows[2]["target"] is None
    assert rows[0]["extra_info"]["level"] == 4
    assert with_tags("no tags") == "no tags"
    with pytest.raises(ValueError, match="trace=4 must be 1, 2 or 3"):
        RECIPES["deepmath"](trace=4)  # type: ignore[call-arg]


def test_s1k_joins_trajectory_and_attempt_in_both_of_its_versions(tmp_path: Path) -> None:
    first = {"question": "q", "solution": "128", "thinking_trajectories": ["I think."], "attempt": r"So \boxed{128}."}
    second = {
        "question": "q",
        "solution": "128",
        "deepseek_thinking_trajectory": "Deep.",
        "deepseek_attempt": "128",
        "gemini_thinking_trajectory": "Gem.",
        "gemini_attempt": "It is 127",
    }
    rows = good(made(RECIPES["s1k"](), tmp_path / "a.jsonl", first, second))
    assert rows[0]["target"][0]["content"] == "<think>\nI think.\n</think>\n\nSo \\boxed{128}."
    assert rows[1]["target"][0]["content"] == "<think>\nDeep.\n</think>\n\n\\boxed{128}"
    gemini = good(made(RECIPES["s1k"](model="gemini"), tmp_path / "a.jsonl", second))[0]  # type: ignore[call-arg]
    assert gemini["target"][0]["content"] == "<think>\nGem.\n</think>\n\nIt is 127"
    proof = {"question": "q", "solution": "We show that " + "x " * 100}
    assert reasons(made(RECIPES["s1k"](), tmp_path / "a.jsonl", proof)) == ["no short answer"]


def test_ones_own_columns_are_named_on_the_command_line(tmp_path: Path) -> None:
    own = RECIPES["own"](
        question="Frage", answer="Zahl", solution="Weg", id="Nr", level="Stufe", source="heft", box="true"
    )  # type: ignore[call-arg]
    (tmp_path / "a.csv").write_text(
        'Nr,Frage,Weg,Zahl,Stufe\n7,"Wie viel, bitte?","1+1\nist 2",2,3\n8,Und nun?,,5,\n,,,,\n'
    )
    rows = list(own.rows("validation", str(tmp_path / "a.csv")))
    assert good(rows)[0] == {
        "data_source": "heft",
        "prompt": [{"role": "user", "content": f"Wie viel, bitte?\n{INSTRUCTION}"}],
        "target": [{"role": "assistant", "content": "1+1\nist 2\nThe answer is \\boxed{2}."}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"split": "validation", "index": 0, "level": 3, "entry": None},
        "prompt_id": "heft/7",
    }
    assert good(rows)[1]["target"] is None
    assert reasons(rows) == ["no question"]
    assert question_of(good(rows)[0]) == "Wie viel, bitte?"
    lacking = made(RECIPES["own"](), tmp_path / "a.jsonl", {"q": "1", "answer": "1"}, {"question": "1", "answer": "1"})
    assert reasons(lacking) == ["no column question"]
    plain = RECIPES["own"](instruction="none")  # type: ignore[call-arg]
    assert good(made(plain, tmp_path / "a.jsonl", {"question": "q", "answer": 1}))[0]["prompt"][0]["content"] == "q"


def answers(rows: list[Row | Dropped]) -> list[str]:
    return [row["reward_model"]["ground_truth"] for row in good(rows)]


def target(row: Row) -> str | None:
    return row["target"] and row["target"][0]["content"]


def test_words_for_no_answer_are_dropped_and_whole_floats_are_integers(tmp_path: Path) -> None:
    values = [
        "proof",
        "$\\text{Proof}$",
        "Not provided",
        "nan",
        "inf",
        "null",
        "notfound",
        *(
            "n.a.",
            "Not available",
            "TODO",
            "nil",
            "empty",
            "QED",
            "Q.E.D.",
            "The proof is complete.",
            "See the solution",
        ),
        *("no answer provided", '""', "--", "..."),
        None,
        "",
        '["7"]',
        r'["\\frac{1}{2}"]',
        7.0,
        0.5,
        "improof",
    ]
    rows = made(RECIPES["math"](), tmp_path / "a.jsonl", *({"problem": f"q{v}", "answer": v} for v in values))
    assert answers(rows) == ["7", r"\frac{1}{2}", "7", "0.5", "improof"]
    assert reasons(rows)[0] == "no answer but the word proof" and reasons(rows)[-1] == "no answer"


def test_openr1_220k_takes_the_first_generation_that_is_right_and_complete(tmp_path: Path) -> None:
    record = {
        "problem": "What is 3+4?",
        "answer": "7",
        "source": "olympiads",
        "uuid": "u0",
        "generations": ["wrong </think> 0", "cut", "add\n</think>\n\nSo \\boxed{7}."],
        "correctness_math_verify": [False, True, True],
        "correctness_llama": None,
        "is_reasoning_complete": [True, False, True],
    }
    none = record | {"problem": "q", "uuid": "u1", "correctness_math_verify": [False] * 3}
    rows = good(made(RECIPES["openr1_220k"](), tmp_path / "a.jsonl", record, none))
    assert target(rows[0]) == "<think>\nadd\n</think>\n\nSo \\boxed{7}." and target(rows[1]) is None
    assert [row["prompt_id"] for row in rows] == ["u0", "u1"] and rows[0]["data_source"] == "olympiads"


def test_prime_takes_the_answer_out_of_its_json(tmp_path: Path) -> None:
    record = {"problem_id": "p0", "prompt": "What is 3+4?", "verification_info": '{"ground_truth": "7"}'}
    rows = made(RECIPES["prime"](), tmp_path / "a.jsonl", record, record | {"verification_info": "no json"})
    assert answers(rows) == ["7"] and good(rows)[0]["prompt_id"] == "p0" and reasons(rows) == ["no answer"]


@pytest.mark.parametrize("truth", ["7", '["7"]', 7])
def test_verl_reads_the_files_of_dapo_and_skywork(tmp_path: Path, truth: Any) -> None:
    record = {
        "data_source": "math_dapo",
        "prompt": [{"content": "What is 3+4?", "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": truth, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "9a"},
    }
    rows = made(RECIPES["verl"](), tmp_path / "a.jsonl", record)
    assert answers(rows) == ["7"] and target(good(rows)[0]) is None and good(rows)[0]["data_source"] == "math_dapo"


def test_math_reads_deepscaler_numina_and_big_math(tmp_path: Path) -> None:
    deepscaler = {"problem": "a?", "answer": "7", "solution": ""}
    numina = {
        "problem": "b?",
        "solution": "So $\\boxed{8}$.",
        "answer": "8",
        "source": "aops_forum",
        "synthetic": False,
    }
    big_math = {"problem": "c?", "answer": "9", "source": "orca_math", "llama8b_solve_rate": 0.5}
    rows = good(made(RECIPES["math"](), tmp_path / "a.jsonl", deepscaler, numina, big_math))
    assert answers(list(rows)) == ["7", "8", "9"] and [target(row) is None for row in rows] == [True, False, True]


CHAT = [{"role": "user", "content": "What is 3+4?"}, {"role": "assistant", "content": "So \\boxed{7}."}]
SHAREGPT = [{"from": "human", "value": "What is 3+4?"}, {"from": "gpt", "value": "So \\boxed{7}."}]


@pytest.mark.parametrize("messages", [CHAT, SHAREGPT])
def test_own_reads_conversations(tmp_path: Path, messages: Any) -> None:
    own = RECIPES["own"](question="messages", answer="box", instruction="none")  # type: ignore[call-arg]
    earlier = [CHAT[0] | {"content": "Hello"}, CHAT[1] | {"content": "Yes?"}]
    short, long = good(made(own, tmp_path / "a.jsonl", {"messages": messages}, {"messages": [*earlier, *messages]}))
    assert short["prompt"] == CHAT[:1] and target(short) == "So \\boxed{7}." and answers([short, long]) == ["7", "7"]
    assert long["prompt"] == [*earlier, CHAT[0]] and target(long) == target(short)
    assert [row["prompt_id"] for row in (short, long)] == [
        prompt_id_of(row | {"prompt_id": None}) for row in (short, long)
    ]


def test_own_reads_alpacas_layout(tmp_path: Path) -> None:
    own = RECIPES["own"](question="instruction", answer="box", solution="output")  # type: ignore[call-arg]
    record = {"instruction": "Add.", "input": "3 and 4", "output": "So \\boxed{7}."}
    [row] = good(made(own, tmp_path / "a.jsonl", record))
    assert row["prompt"][0]["content"] == f"Add.\n3 and 4\n{INSTRUCTION}"
    assert (target(row), row["reward_model"]["ground_truth"]) == ("So \\boxed{7}.", "7")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"solution": "solutionn"},
            r"^solution=solutionn must be a column .* the records have question, .*did you mean",
        ),
        ({"solution": "generations"}, "^solution=generations must be a column of texts or numbers, and it holds lists"),
        ({"answer": "info"}, "^answer=info must be a column .* it holds JSON with the keys ground_truth"),
        ({"question": "chat"}, "^question=chat must be a column .* it holds JSON with the keys role, content"),
        ({"answer": "anser"}, r"^answer=anser must be a column .*; answer=box takes the last box of the solution"),
        ({"answer": "solution"}, "^solution=solution must be another column than answer=solution"),
    ],
)
def test_a_column_that_cannot_be_read_is_named(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    record = {
        "question": "q",
        "answer": "7",
        "solution": "so",
        "generations": ["a", "b"],
        "info": '{"ground_truth": "7"}',
        "chat": '[{"role": "user", "content": "q"}]',
    }
    with pytest.raises(ValueError, match=message):
        made(RECIPES["own"](**settings), tmp_path / "a.jsonl", record)  # type: ignore[call-arg]
    for named in ({"solution": ["a", "b"]}, {"solution": '{"text": "so"}'}):
        with pytest.raises(ValueError, match=r"^solution=solution must be a column of texts or numbers, and it holds"):
            made(RECIPES["own"](), tmp_path / "a.jsonl", record | named)


@pytest.mark.parametrize(
    ("expression", "answer", "steps"),
    [
        ("5 - 3 - 6", "-4", "5 - 3 = 2\n2 - 6 = -4"),
        ("2 + 3 * 4", "14", "3 * 4 = 12\n2 + 12 = 14"),
        ("2 - (3 - 9)", "8", "3 - 9 = -6\n2 - (-6) = 8"),
        ("-5 + 2", "-3", "-5 + 2 = -3"),
        ("1 / 4 + 1", "1.25", "1 / 4 = 0.25\n0.25 + 1 = 1.25"),
        ("1 / 3 * 3", "1", "1 / 3 = 1/3\n1/3 * 3 = 1"),
        ("1.1 + 2.2", "3.3", "1.1 + 2.2 = 3.3"),
        ("1 + 1", "3", None),
        ("7", "7", None),
        ("x + 1", "2", None),
        ("__import__('os')", "2", None),
        ("2 ** 3", "8", None),
        ("1 / 0", "1", None),
        ("1 +", "1", None),
    ],
)
def test_arithmetic_is_written_step_by_step_or_not_at_all(expression: str, answer: str, steps: str | None) -> None:
    assert arithmetic_steps(expression, answer) == steps


def test_a_familys_own_steps_lose_their_final_line() -> None:
    assert written_steps({"answer": "2", "metadata": {"answer_cot": "1+1=2\n#### 2"}}) == "1+1=2"
    assert written_steps({"answer": "2", "metadata": {}}) is None


gymnasium = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)


@gymnasium
@pytest.mark.parametrize("family", ["chain_sum", "basic_arithmetic", "gsm_symbolic"])
def test_steps_of_reasoning_gym_verify_by_the_familys_own_scorer(family: str) -> None:
    rows = good(list(ReasoningGym(family=family).rows("train", "20")))
    assert len(rows) == 20 and all(row["target"] for row in rows)
    for row in rows:
        text, answer = row["target"][0]["content"], row["reward_model"]["ground_truth"]
        assert gym.compute_score("s", text, answer, row["extra_info"])["acc"] == 1
        assert gym.compute_score("s", "<answer>no</answer>", answer, row["extra_info"])["acc"] == 0


@gymnasium
def test_levels_are_the_curriculums_and_splits_share_no_question() -> None:
    recipe = ReasoningGym(family="chain_sum", levels="0,3")
    train, validation = good(list(recipe.rows("train", "60"))), good(list(recipe.rows("validation", "20")))
    assert [row["extra_info"]["level"] for row in train] == [0] * 60 + [3] * 60
    assert len(validation) == 40
    terms = {
        level: [
            json.loads(row["extra_info"]["entry"])["metadata"]["num_terms"]
            for row in train
            if row["extra_info"]["level"] == level
        ]
        for level in (0, 3)
    }
    assert set(terms[0]) == {2} and set(terms[3]) == {5}
    questions = [{row["prompt"][0]["content"] for row in rows} for rows in (train, validation)]
    assert len(questions[0]) == 120 and not questions[0] & questions[1]
    assert train == good(list(recipe.rows("train", "60")))
    assert train != good(list(ReasoningGym(family="chain_sum", levels="0,3", seed=1).rows("train", "60")))


@gymnasium
def test_an_entry_with_tuples_still_scores_after_json() -> None:
    row = good(list(ReasoningGym(family="arc_agi").rows("train", "1")))[0]
    assert json.loads(row["extra_info"]["entry"])["tuples"] is True
    answer = row["reward_model"]["ground_truth"]
    assert gym.compute_score("s", f"<answer>{answer}</answer>", answer, row["extra_info"])["acc"] == 1


@gymnasium
def test_a_family_with_few_questions_says_so() -> None:
    rows = list(ReasoningGym(family="coin_flip", config='{"min_trials": 3, "max_trials": 3}').rows("train", "50"))
    assert len(rows) == 50 and reasons(rows)
    assert set(reasons(rows)) == {"coin_flip has fewer different questions than asked for"}


@gymnasium
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "family= must be set"),
        ({"family": "chain_sums"}, r"family=chain_sums must be a family of reasoning-gym \(did you mean chain_sum\?\)"),
        ({"family": "chain_sum", "levels": "low"}, "levels=low must be default or whole numbers"),
        ({"family": "chain_sum", "levels": "99"}, "levels=99 must be at most 10 for chain_sum"),
        ({"family": "gsm_symbolic", "levels": "0"}, "levels=0 must be default for gsm_symbolic"),
        ({"family": "chain_sum", "config": "[1]"}, r"config=\[1\] must be a JSON object"),
        ({"family": "chain_sum", "config": '{"min_terms": 0}'}, "must be settings that the family takes"),
    ],
)
def test_settings_of_reasoning_gym_are_checked(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(ReasoningGym(**settings).rows("train", "1"))  # type: ignore[arg-type]


def test_the_split_of_a_question_is_a_fifth_by_its_text() -> None:
    share = sum(split_of(str(number)) == "validation" for number in range(5000)) / 5000
    assert 0.18 < share < 0.22


SOLUTION = "We count.\n\n1. **Add**: 2 + 3\n= 5\n2) Double it:\n10\n\n3. So \\boxed{10}."


def test_srl_makes_a_row_of_every_step_but_the_last_from_those_before_it(tmp_path):
    record = {"question": "What is 2(2 + 3)?", "deepseek_attempt": SOLUTION, "id": 7}
    first, second = made(RECIPES["srl"](), tmp_path / "a.jsonl", record)
    assert first["prompt"][0]["content"].startswith("What is 2(2 + 3)?\n\nThink between <think> and </think>")
    assert first["reward_model"]["ground_truth"] == "We count.\n\n1. **Add**: 2 + 3\n= 5"
    shown = second["prompt"][0]["content"]
    assert "The solution so far:\n\nWe count.\n\n1. **Add**: 2 + 3\n= 5\n\nThink between" in shown
    assert second["reward_model"]["ground_truth"] == "2) Double it:\n10"
    assert all("boxed" not in row["prompt"][0]["content"] for row in (first, second))
    assert [row["prompt_id"] for row in (first, second)] == ["srl/7/1", "srl/7/2"]
    assert {row["data_source"] for row in (first, second)} == {"srl"} and first["target"] is None


def test_srl_drops_a_solution_of_one_step(tmp_path):
    rows = made(RECIPES["srl"](), tmp_path / "a.jsonl", {"question": "a?", "deepseek_attempt": "b"})
    assert reasons(rows) == ["fewer than two steps"]


@pytest.mark.parametrize(
    ("solution", "steps"),
    [
        ("1. a\n2. b", ["1. a", "2. b"]),
        ("### Step 1: a\nx\n### Step 2: b", ["### Step 1: a\nx", "### Step 2: b"]),
        ("**1. a**\n1. i\n2. ii", ["**1. a**\n1. i", "2. ii"]),
        ("a\n\n\n b\nc", ["a", "b\nc"]),
        ("7. a\n\n9. b", ["7. a", "9. b"]),
        ("1. a", ["1. a"]),
        ("", []),
    ],
)
def test_a_solution_is_cut_at_its_numbers_in_order_else_at_blank_lines(solution, steps):
    assert steps_of(solution) == steps


def problem(name: str, text: str, answer: Any, *steps: str) -> dict[str, Any]:
    """A problem in the layout of CHAMP's file, with made-up words."""
    raw = [{"_raw_text": f"@@{step}@@", "_text": step, "ch_idxs": [0]} for step in steps]
    return {"identifier": name, "_text": text, "category": "X", "solution": {"steps": raw}, "_answer": answer}


def champ(tmp_path: Path, *problems: Any) -> list[Row | Dropped]:
    path = tmp_path / "v0.json"
    held = {one.get("identifier", str(place)): one for place, one in enumerate(problems)}
    path.write_text(json.dumps({"problems": held, "concepts": {}, "hints": {}}, indent=2))
    return list(RECIPES["champ-dataset"]().rows("train", str(path)))


def test_champs_steps_are_the_demonstration_closed_by_the_boxed_answer(tmp_path: Path) -> None:
    [row] = champ(tmp_path, problem("P_1", "How many?", "C(4, 2), or equivalently 6", "Choose 2 of 4.", "Count them. "))
    text = "Choose 2 of 4.\nCount them.\nThe answer is \\boxed{\\binom{4}{2}}."
    assert not isinstance(row, Dropped) and row["target"] == [{"role": "assistant", "content": text}]
    assert (row["prompt_id"], row["data_source"]) == ("P_1", "champ")
    assert row["prompt"] == [{"role": "user", "content": f"How many?\n{INSTRUCTION}"}]
    assert math.is_correct(text, row["reward_model"]["ground_truth"]) and math.is_correct("\\boxed{6}", "\\binom{4}{2}")


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("239", "239"),
        ("98 values", "98"),
        ("100 (i.e., all values)", "100"),
        ("3 is the only possible value", "3"),
        ("5/14, or approximately 35.7%", "5/14"),
        ("n(n+1)*2^(n-2)", "n(n+1)*2^{n-2}"),
        ("sqrt(3)/3, or equivalently 1/sqrt(3)", "\\sqrt{3}/3"),
        ("No", "No"),
        ("No integer solutions", None),
        ("At least 1 number", None),
        ("2^floor(n/2)", None),
        (None, None),
    ],
)
def test_champs_answers_are_mathematics_and_those_in_words_are_no_rows(
    tmp_path: Path, written: Any, answer: Any
) -> None:
    [row] = champ(tmp_path, problem("P_1", "How many?", written, "So."))
    found = None if isinstance(row, Dropped) else row["reward_model"]["ground_truth"]
    assert found == answer


def test_a_problem_without_a_solution_is_dropped_and_another_file_is_an_error(tmp_path: Path) -> None:
    assert reasons(champ(tmp_path, {"_text": "Why?", "_answer": "1"})) == ["no problem with solution and answer"]
    (tmp_path / "v0.json").write_text('[{"question": "1+1?"}]')
    with pytest.raises(ValueError, match=r"train=.*v0\.json must be package, or the v0\.json of champ-dataset"):
        list(RECIPES["champ-dataset"]().rows("train", str(tmp_path / "v0.json")))
    with pytest.raises(
        ValueError, match="val=package needs the package champ-dataset; run pip install --no-deps champ"
    ):
        list(RECIPES["champ-dataset"]().rows("validation", "package"))
