"""Conformance suites and stand-ins, for the tests of anyone who extends Archon.

A third party subclasses a suite, says how to make the thing, and gets the whole contract:

    class TestMyStore(StoreCases):
        async def open_store(self, path):
            return MyStore(path)

`StubServer` is an OpenAI-compatible server whose replies, delays and faults a test chooses; `archon.testing.instruct`
is a model made of rules, behind such a server or in process (docs/testing.md). Needs pytest and pytest-asyncio
(asyncio_mode = "auto").
"""

from archon.testing.backends import BackendCases
from archon.testing.likelihoods import LikelihoodCases
from archon.testing.retrievers import RetrieverCases
from archon.testing.scorers import ScorerCases
from archon.testing.server import Answer, Asked, StubServer
from archon.testing.stages import StageCases, scripted_run
from archon.testing.stores import StoreCases
from archon.testing.verifiers import VerifierCases

__all__ = [
    "Answer",
    "Asked",
    "BackendCases",
    "LikelihoodCases",
    "RetrieverCases",
    "ScorerCases",
    "StageCases",
    "StoreCases",
    "StubServer",
    "VerifierCases",
    "scripted_run",
]
