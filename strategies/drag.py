"""Demonstration-based RAG: retrieved documents and worked examples in one long prompt.

Source: Yue et al. 2024, "Inference Scaling for Long-Context Retrieval Augmented Generation" (arXiv 2410.04343),
section 3. The prompt holds m examples, each with k documents of its own, then k documents for the question, the
best last, next to it. More of either is more compute in one call; what to have more of is
strategies/retrieval_allocation.py's matter. Cost: n calls, exactly; the tokens of about (m + 1) × k documents each.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field, TypeAdapter, ValidationError

from archon.component import Value
from archon.errors import DataError
from archon.problem import Problem
from archon.prompting import Places, pose, question_of
from archon.retrieval import BM25, AnyRetriever
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.asking import Asking

PROMPT = """\
{examples}

{documents}

{question}

Answer the question with what the documents say. The documents that fit it best come last, and some may have \
nothing to do with it. Where there are examples, they show which questions are asked of such documents and how \
they are answered: answer in the same way, as briefly, and with nothing else."""


class Step(Value):
    """A question on the way to an answer, with its own answer."""

    question: str
    answer: str


class Example(Value):
    """A question that has been answered, to show how."""

    question: str
    answer: str
    documents: tuple[str, ...] = ()
    """Its documents, the best first; retrieved for it where not given, unless documents belong to one problem."""
    steps: tuple[Step, ...] = ()
    """For `iter_drag`: what was asked on the way."""


_EXAMPLES = TypeAdapter(tuple[Example, ...])


class Retrieving(Asking):
    """A source that answers from retrieved documents, with examples."""

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    retriever: AnyRetriever = BM25()
    """Who finds documents: `bm25` over the problem's own, or over a folder's."""
    k: Annotated[int, Field(ge=0)] = 8
    """How many documents are retrieved for a query."""
    examples: tuple[Example, ...] = ()
    """Answered questions to show; those that the problem's info holds under `key` where none are given."""
    key: Annotated[str, Field(min_length=1)] = "examples"
    """Where the problem's info holds examples, as a list of mappings with `question`, `answer` and the like."""
    m: Annotated[int, Field(ge=0)] | None = None
    """How many of the examples are shown, the first; all where not given."""
    n: Annotated[int, Field(ge=0)] = 1
    """How many independent answers."""

    @abstractmethod
    def shown(self, example: Example) -> str:
        """What an example shows, below its documents."""
        raise NotImplementedError

    @property
    def models(self) -> tuple[str, ...]:
        """The model, and the retriever's."""
        return (self.model, *self.retriever.models)

    def question(self, problem: Problem) -> str:
        """The question, without documents that are retrieved from."""
        return question_of(problem.model_copy(update={"documents": ()}) if self.retriever.own else problem)

    async def documents(self, problem: Problem, query: str, run: Run) -> list[str]:
        """The k documents that fit a query, the best last."""
        if not self.k:
            return []
        passages = await self.retriever.retrieve(problem, query, self.k, run)
        run.trace("retrieved", query=query, sources=[p.source for p in passages])
        return [p.text for p in reversed(passages)]

    async def demonstrations(self, problem: Problem, run: Run) -> list[str]:
        """The examples as they are shown, each with its documents. Raises DataError for malformed ones."""
        chosen = (self.examples or self._of_problem(problem))[: self.m]
        return await run.gather(*(self._demonstration(problem, example, run) for example in chosen))

    def _of_problem(self, problem: Problem) -> tuple[Example, ...]:
        try:
            return _EXAMPLES.validate_python(problem.info.get(self.key, ()))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, (self.key, *first["loc"])))
            raise DataError(
                f"problem {problem.id!r}: `info` holds no examples at {place}: {first['msg']}"
            ) from None

    async def _demonstration(self, problem: Problem, example: Example, run: Run) -> str:
        documents = list(reversed(example.documents[: self.k]))
        if not example.documents and not self.retriever.own:
            documents = await self.documents(problem, example.question, run)
        numbered = (f"Document {i}: {text}" for i, text in enumerate(documents, 1))
        return "\n\n".join((*numbered, self.shown(example)))


class Drag(Retrieving):
    """Answer once from k documents, after m examples."""

    again: Annotated[int, Field(ge=0, le=0)] = 0
    """Nothing is read here, so nothing is asked again."""

    prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "documents|documents_text",
            optional=("examples", "examples_text", "mark"),
        ),
    ] = PROMPT
    """What the model is asked."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Retrieve, then draw."""
        documents = await self.documents(problem, problem.question, run)
        examples = await self.demonstrations(problem, run)
        posed = pose(self.prompt, examples=examples, documents=documents, question=self.question(problem))
        async for candidate in self.write(run, posed, self.n):
            yield candidate

    def shown(self, example: Example) -> str:
        """Its question and answer."""
        return f"Question: {example.question}\n\nAnswer: {example.answer}"

    def plan(self, incoming: Count) -> Plan:
        """n calls, n candidates."""
        return Plan(Count(self.n, self.n), Count(self.n, self.n))
