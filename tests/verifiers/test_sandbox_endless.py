"""Attacks that go on until their time is up: not a pass, and nothing spoiled for the program after them."""

from __future__ import annotations

import pytest

from archon.benchmarks.hostile.forgeries import SLOW
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import FORMS
from tests.verifiers.test_sandbox_attacks import BRIEF, refused, unspoiled

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("form", ["cases", "check"])
@pytest.mark.parametrize("source", SLOW.values(), ids=SLOW)
async def test_who_goes_on_for_ever_is_not_a_pass_and_spoils_nothing(
    sandbox: Sandbox, source: str, form: str
) -> None:
    await refused(sandbox, source, FORMS[form], BRIEF)
    await unspoiled(sandbox)
