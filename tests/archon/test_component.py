"""Frozen values: what a copy keeps and what it computes anew."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import ValidationError

from archon.budget import Budget
from archon.execution import Limits, Program


def test_a_changed_copy_does_not_keep_what_was_computed_from_the_original() -> None:
    limits = Limits()
    before = limits.digest
    assert limits.model_copy(update={"cpu_seconds": 7.0}).digest == Limits(cpu_seconds=7.0).digest != before
    program = Program(source="a", entry_point="f")
    assert program.digest != program.model_copy(update={"source": "b"}).digest


def test_equal_values_are_equal_whatever_was_computed_from_them() -> None:
    one, other = Limits(cpu_seconds=3), Limits(cpu_seconds=3)
    assert one.digest
    assert one == other and hash(one) == hash(other)


def test_given_is_what_differs_from_the_defaults_in_the_order_declared() -> None:
    assert list(Budget(usd=Decimal(1), requests=3).given()) == ["requests", "usd"]
    assert Budget().given() == {}


def test_a_value_is_frozen_and_takes_no_unknown_field() -> None:
    with pytest.raises(ValidationError):
        Limits().cpu_seconds = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Limits(cpu=1)  # type: ignore[call-arg]
