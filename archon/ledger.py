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
        self.total = NOTHING
        """Everything, replayed samples included."""
        self.fresh = NOTHING
        """The part that was spent now."""
        self.by_stage: dict[str, Usage] = {}
        self.by_model: dict[str, Usage] = {}
        self._replayed: list[tuple[str, str, Usage]] = []

    def enter(self, stage: str, model: str, usage: Usage, *, fresh: bool) -> None:
        """Enter one call."""
        self.total += usage
        self.by_stage[stage] = self.by_stage.get(stage, NOTHING) + usage
        self.by_model[model] = self.by_model.get(model, NOTHING) + usage
        if fresh:
            self.fresh += usage
            if self.parent is not None:
                self.parent.enter(stage, model, usage, fresh=True)
        elif self.parent is not None:
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
        self._replayed.clear()
        self.by_stage, self.by_model = dict(by_stage), dict(by_model)
        self.total = total(by_stage.values())
        self.parent.total += self.total
        for mine, around in ((by_stage, self.parent.by_stage), (by_model, self.parent.by_model)):
            for name, usage in mine.items():
                around[name] = around.get(name, NOTHING) + usage
