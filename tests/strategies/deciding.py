"""What a decision of AB-MCTS takes, by variant and by how many scores there are.

    python -m tests.strategies.deciding

prints a table: microseconds of CPU time per answer, the median of 200 decisions, one at a time and in rounds of 16.
The trees are random: each answer is a child of any of those before it or of the root, and its score is random.
"""

from __future__ import annotations

from functools import cache, partial
from statistics import median
from time import process_time

from archon.strategies.stepping.branching import branch, branch_mixed, fitted
from archon.strategies.stepping.search import generator
from archon.strategies.stepping.tree import EMPTY_TREE, UNIT, Born, Tree, added

SIZES = (8, 64, 512)
TREES = 5
ROUND = 16


def random_tree(scores: int, seed: int) -> Tree:
    """So many answers."""
    rng, tree = generator(seed), EMPTY_TREE
    for place in range(scores):
        tree = added(tree, [(int(rng.integers(place + 1)), [Born(float(rng.random()))])])
    return tree


def decided(variant: str, tree: Tree, seed: int, times: int) -> float:
    """Microseconds for one of so many decisions of a round."""
    start = process_time()
    model = cache(partial(fitted, tree, UNIT))
    for number in range(times):
        rng = generator(seed, number)
        if variant == "mixed_model":
            branch_mixed(tree, model, rng)
        else:
            branch(tree, "gaussian", rng)
    return (process_time() - start) / times * 1e6


def main() -> None:
    """Print the table."""
    print("| variant | in a round | " + " | ".join(f"{size} scores" for size in SIZES) + " |")
    print("|---|---|" + "---|" * len(SIZES))
    trees = {size: [random_tree(size, seed) for seed in range(TREES)] for size in SIZES}
    for variant in ("node_aggregation", "mixed_model"):
        for times in (1, ROUND):
            taken = [
                median(decided(variant, tree, seed, times) for tree in trees[size] for seed in range(40))
                for size in SIZES
            ]
            print(f"| {variant} | {times} | " + " | ".join(f"{some:.0f}" for some in taken) + " |")


if __name__ == "__main__":
    main()
