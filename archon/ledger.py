"""The ledger: what was used, by stage and by model.

Every call is entered once, cancelled, failed and retried ones included, so the sum over stages equals
the sum over models equals the sum over calls. Replayed samples are entered with their recorded usage;
`fresh` counts only what was spent now.
"""

from __future__ import annotations

from collections.abc import Mapping

from archon.usage import NOTHING, Usage, total


class Ledger:
    """A running account.

    Fresh entries go at once to the ledger around it (problem to run), replayed ones when `publish` or
    `restate` says that they stand.
    """

    def __init__(self, parent: Ledger | None = None) -> None:
        self.parent = parent
        self._sums: dict[tuple[str, str, bool], Usage] = {}
        """Usage by stage, model and whether it was spent now: one addition per entry, and the other sums
        when they are asked for."""
        self._stated: tuple[dict[str, Usage], dict[str, Usage]] = ({}, {})
        """What is on record, by stage and by model."""
        self._spent = NOTHING
        """What was spent now, and is in what is on record."""
        self._replayed: list[tuple[str, str, Usage]] = []

    @property
    def total(self) -> Usage:
        """Everything, replayed samples included."""
        return total(self._stated[0].values()) + total(self._sums.values())

    @property
    def fresh(self) -> Usage:
        """The part that was spent now."""
        return self._spent + total(usage for (_, _, fresh), usage in self._sums.items() if fresh)

    @property
    def by_stage(self) -> dict[str, Usage]:
        """Everything, by stage."""
        found = dict(self._stated[0])
        for (stage, _, _), usage in self._sums.items():
            found[stage] = found.get(stage, NOTHING) + usage
        return found

    @property
    def by_model(self) -> dict[str, Usage]:
        """Everything, by model."""
        found = dict(self._stated[1])
        for (_, model, _), usage in self._sums.items():
            found[model] = found.get(model, NOTHING) + usage
        return found

    def enter(self, stage: str, model: str, usage: Usage, *, fresh: bool) -> None:
        """Enter one call."""
        place = stage, model, fresh
        self._sums[place] = self._sums.get(place, NOTHING) + usage
        if self.parent is None:
            return
        if fresh:
            self.parent.enter(stage, model, usage, fresh=True)
        else:
            self._replayed.append((stage, model, usage))

    def publish(self) -> None:
        """Enter the replayed calls in the ledger around this one."""
        assert self.parent is not None
        for stage, model, usage in self._replayed:
            self.parent.enter(stage, model, usage, fresh=False)
        self._replayed.clear()

    def restate(self, by_stage: Mapping[str, Usage], by_model: Mapping[str, Usage]) -> None:
        """Replace a wholly replayed account by the one on record, and enter that around it."""
        assert self.parent is not None
        self._spent = self.fresh
        self._replayed.clear()
        self._sums.clear()
        self._stated = dict(by_stage), dict(by_model)
        for mine, around in zip((by_stage, by_model), self.parent._stated, strict=True):
            for name, usage in mine.items():
                around[name] = around.get(name, NOTHING) + usage
