"""A model made of rules: it reads each technique's prompt as a model would, and replies with a chosen skill.

    instruct = Instruct(Skill.of(0.9, ranking=0.2), malformed=0.3)
    async with instruct.server() as server:                       # a real OpenAI-compatible server
        models = {"default": OpenAI(model="rules", base_url=server.url)}
    outcome = await pipeline.run(problem, models=instruct.model())   # or in process

It knows the truth of a family of problems (`sums`), so what skill at each step is worth can be measured; and it
replies out of form as often as is wanted, so that what a technique does then can be seen. Every prompt of a
registered stage or verifier is known by itself, and any other by the form that it asks for (docs/testing.md).
"""

from archon.testing.instruct.malformed import Malformation
from archon.testing.instruct.mind import Mind, Skill
from archon.testing.instruct.model import Instruct
from archon.testing.instruct.reading import Form, Question, Recogniser
from archon.testing.instruct.rules import Rule, obey
from archon.testing.instruct.sums import Sum, is_right, sums, truth_of, value_of
from archon.testing.instruct.techniques import RULES

__all__ = [
    "RULES",
    "Form",
    "Instruct",
    "Malformation",
    "Mind",
    "Question",
    "Recogniser",
    "Rule",
    "Skill",
    "Sum",
    "is_right",
    "obey",
    "sums",
    "truth_of",
    "value_of",
]
