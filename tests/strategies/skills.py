"""What skill at one step is worth to each technique, with the rule-based model.

    python -m tests.strategies.skills

prints a table: the share of problems whose chosen answer is right, by the skill at the step that the technique rests
on, with what the techniques start from (one answer, and a vote of three) at the same skill in solving.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.stage import Stage
from archon.strategies.ab_mcts import ABMCTS
from archon.strategies.atom_of_thoughts import AtomOfThoughts
from archon.strategies.back_translate import BackTranslate
from archon.strategies.best_of import BestOf
from archon.strategies.chain_of_verification import ChainOfVerification
from archon.strategies.critique import Critique
from archon.strategies.debate import Debate
from archon.strategies.first_passing import FirstPassing
from archon.strategies.fuse import Fuse
from archon.strategies.gen_select import GenSelect
from archon.strategies.hand_over import HandOver
from archon.strategies.idea_search import IdeaSearch
from archon.strategies.iter_drag import IterDrag
from archon.strategies.judge_verify import JudgeVerify
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.mixture_of_agents import MixtureOfAgents
from archon.strategies.plan_search import PlanSearch
from archon.strategies.plan_then_write import PlanThenWrite
from archon.strategies.rank import Rank
from archon.strategies.revise import Revise
from archon.strategies.sample import Sample
from archon.strategies.self_aggregate import SelfAggregate
from archon.strategies.self_refine import SelfRefine
from archon.strategies.test_evaluate import TestEvaluate
from archon.strategies.test_first import TestFirst
from archon.strategies.tree_of_thoughts import TreeOfThoughts
from archon.strategies.universal_self_consistency import UniversalSelfConsistency
from archon.strategies.verify import Verify
from archon.strategies.write_tests import WriteTests
from archon.testing.instruct import Instruct, Skill, is_right, sums
from archon.verifiers.judge import Judge
from archon.verifiers.unit_tests import UnitTests
from tests.strategies.instructed import solved_by_rules

LOW, HIGH = 0.1, 1.0
NUMBERS = sums(16)
SHORT = sums(24, terms=3)
NAMED = sums(8, named=2)
PROGRAMS = sums(10, code=True)
SAMPLES = Sample(n=3)


class Case(NamedTuple):
    step: str
    pipeline: Stage | Pipeline
    problems: list[Problem] = NUMBERS
    but: Mapping[str, float] = MappingProxyType({"solving": 0.8})
    """Where the skill is not 1 at the other steps."""
    gain: float = 0.2
    """How much more must be right, as a share of the problems."""


CASES = {
    "atom_of_thoughts": Case("decomposing", AtomOfThoughts(answers=("contracted",))),
    "atom_of_thoughts by its choice": Case("ranking", AtomOfThoughts(), PROGRAMS),
    "atom_of_thoughts by its synthesis": Case("fusing", AtomOfThoughts(choose="synthesis"), PROGRAMS),
    "judge": Case("judging", SAMPLES | Verify(verifier=Judge(read="text")) | BestOf()),
    "judge by its probability": Case(
        "judging", SAMPLES | Verify(verifier=Judge(read="probability")) | BestOf()
    ),
    "judge_verify": Case("judging", SAMPLES | JudgeVerify(), but={"solving": 0.8, "criticising": 0.1}),
    "judge_verify by its reasons": Case(
        "criticising", SAMPLES | JudgeVerify(), but={"solving": 0.8, "judging": 0}
    ),
    "rank in a list": Case("ranking", SAMPLES | Rank(keep=1)),
    "rank in pairs": Case("ranking", SAMPLES | Rank(method="pairwise", keep=1)),
    "rank by scores": Case("ranking", SAMPLES | Rank(method="pointwise", keep=1)),
    "rank by critiques": Case(
        "criticising", SAMPLES | Critique() | Rank(keep=1), but={"solving": 0.8, "ranking": 0}
    ),
    "gen_select": Case("ranking", SAMPLES | GenSelect()),
    "universal_self_consistency": Case("ranking", Sample(n=5) | UniversalSelfConsistency()),
    "fuse": Case("fusing", SAMPLES | Fuse(), but={"solving": 0.7}),
    "fuse by critiques": Case(
        "criticising", SAMPLES | Critique() | Fuse(), but={"solving": 0.8, "fusing": 0}
    ),
    "mixture_of_agents": Case("fusing", MixtureOfAgents(layers=2)),
    "self_aggregate": Case(
        "fusing", Sample(n=4) | SelfAggregate(k=3, steps=2) | MajorityVote(), but={"solving": 0.7}
    ),
    "debate": Case("fusing", Debate() | MajorityVote()),
    "self_refine": Case("revising", Sample() | SelfRefine()),
    "self_refine by its feedback": Case("criticising", Sample() | SelfRefine()),
    "revise": Case("revising", Revise(chains=2, length=3) | MajorityVote()),
    "chain_of_verification": Case("judging", Sample() | ChainOfVerification(questions=2), SHORT, gain=0.1),
    "chain_of_verification by its questions": Case(
        "planning", Sample() | ChainOfVerification(questions=2), SHORT, gain=0.1
    ),
    "idea_search": Case("planning", IdeaSearch(n=2) | MajorityVote()),
    "plan_search": Case(
        "planning",
        PlanSearch(n=2) | Verify(verifier=UnitTests()) | FirstPassing(),
        PROGRAMS,
        {"criticising": 0},
    ),
    "plan_search by its critic": Case(
        "criticising",
        PlanSearch(n=2, keep=1, layers=1) | Verify(verifier=UnitTests()) | FirstPassing(),
        PROGRAMS,
        {"planning": 0.3, "judging": 0.5},
    ),
    "tree_of_thoughts": Case("judging", TreeOfThoughts(n=2, k=3, v=1), but={"solving": 0.7}),
    "tree_of_thoughts by its votes": Case(
        "ranking", TreeOfThoughts(n=2, k=3, v=1, generate="propose", evaluate="vote"), but={"solving": 0.7}
    ),
    "back_translate": Case("planning", Sample() | BackTranslate()),
    "plan_then_write": Case("planning", PlanThenWrite()),
    "write_tests": Case("testing", SAMPLES | WriteTests(n=3) | TestEvaluate(keep=1), PROGRAMS),
    "test_first": Case(
        "testing", TestFirst(n=3, solver=Pipeline([SAMPLES])) | TestEvaluate(keep=1), PROGRAMS
    ),
    "test_evaluate": Case("judging", SAMPLES | WriteTests(n=3) | TestEvaluate(keep=1)),
    "iter_drag": Case("decomposing", IterDrag(k=1), NAMED),
    "ab_mcts": Case(
        "revising", ABMCTS(n=4, verifier=Judge(read="text")) | BestOf(), but={"solving": 0.6}, gain=0.15
    ),
    "hand_over": Case(
        "confidence",
        Sample(logprobs=0) | HandOver(confidence="logprob", threshold=-0.5),
        but={"solving": 0.8},
    ),
}


def measured(case: Case, skill: float) -> tuple[float, float]:
    """The share of right answers at this skill, and the calls per problem."""
    model = Instruct(Skill.of(1.0, **{**case.but, case.step: skill}))
    outcomes = solved_by_rules(case.pipeline, case.problems, model)
    right = sum(is_right(p, o.answer) for p, o in zip(case.problems, outcomes, strict=True))
    return right / len(outcomes), sum(o.usage.requests for o in outcomes) / len(outcomes)


def main() -> None:
    """Print the table."""
    print("| technique | problems | skill at | 0.1 | 0.5 | 1 | calls | one answer | vote of three |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        shares = [measured(case, skill) for skill in (LOW, 0.5, HIGH)]
        start = Case("solving", Sample(), case.problems)
        vote = Case("solving", SAMPLES | MajorityVote(), case.problems)
        plain = [measured(c, case.but.get("solving", 1.0))[0] for c in (start, vote)]
        figures = " | ".join(f"{100 * share:.0f}" for share, _ in shares)
        print(
            f"| {name} | {len(case.problems)} | {case.step} | {figures} | {shares[-1][1]:.0f} | "
            + " | ".join(f"{100 * share:.0f}" for share in plain)
            + " |"
        )


if __name__ == "__main__":
    main()
