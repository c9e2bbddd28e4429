"""Malformed TOML files: what is wrong, where, and the words that must be said about it."""

from __future__ import annotations

from tests.archon.malformed.yaml_files import Malformed

TOML = {
    "empty": Malformed("", ("empty", "pipeline")),
    "comment only": Malformed("# nothing yet\n", ("empty", "pipeline")),
    "unclosed table": Malformed("[[pipeline]]\nsample = {n = 4\n", ("not valid TOML",), 2),
    "no value": Malformed("[[pipeline]]\nsample =\n", ("not valid TOML",), 2),
    "duplicated key": Malformed("[budget.run]\nusd = 1\nusd = 2\n", ("not valid TOML",), 3),
    "YAML by mistake": Malformed("pipeline:\n  - sample\n", ("not valid TOML",), 1),
    "UTF-16": Malformed("pipeline = []\n".encode("utf-16"), ("not UTF-8",)),
    "zero byte": Malformed(b"pipeline = [\0]\n", ("not valid TOML",), 1),
    "very deep": Malformed(
        "pipeline = " + "[" * 5000 + "]" * 5000, ("nested too deeply",)
    ),
    "five thousand digits": Malformed(
        f"[[pipeline]]\nsample = {{n = {'9' * 5000}}}\n", ("TOML",)
    ),
    "five thousand digits in another base": Malformed(
        f"[[pipeline]]\nsample = {{n = 0x{'f' * 5000}}}\n", ("TOML",)
    ),
    "deeper than anything needs": Malformed(
        "[[pipeline]]\nsample.extra.x = " + "[" * 150 + "]" * 150, ("nested too deeply",), 1
    ),
    "more than anything needs": Malformed("pipeline = [" + "1," * 100_000 + "]", ("100,000 values",)),
    "long key": Malformed(f"[[pipeline]]\n\n{'k' * 5000} = 1\n", ("no stage", "'kkkk"), 3),
    "misspelt stage": Malformed(
        "[[pipeline]]\nsample = {n = 1}\n\n[[pipeline]]\nmajority_vot = {}\n", ("'majority_vot'", "majority_vote"), 5
    ),
    "misspelt key": Malformed("[[pipeline]]\nsample = {n = 1, temprature = 1}\n", ("'temprature'",), 2),
    "misspelt key in a table": Malformed(
        "[[pipeline]]\n[pipeline.sample]\nn = 4\ntemprature = 0.8\n", ("'temprature'",), 4
    ),
    "negative n in a table": Malformed(
        "[[pipeline]]\n[pipeline.sample]\nn = -4\n", ("sample.n", "-4"), 3
    ),
    "misspelt key deep in a table": Malformed(
        "[[pipeline]]\nsample = {}\n\n[[pipeline]]\n[pipeline.verify.verifier.unit_tests.limits]\ncpu_second = 1\n",
        ("'cpu_second'", "'cpu_seconds'"),
        6,
    ),
    "misspelt key of a model": Malformed(
        '[[pipeline]]\nsample = {}\n\n[models.default]\nbackend = "openai"\nmodel = "m"\nbase_uri = "x"\n',
        ("'base_uri'", "Did you mean 'base_url'?"),
        7,
    ),
    "budget that is not a number": Malformed(
        "[budget.run]\nusd = nan\n\n[[pipeline]]\nsample = {}\n", ("run.usd", "nan"), 2
    ),
    "infinite budget": Malformed(
        "[budget]\nproblem = {seconds = inf}\n\n[[pipeline]]\nsample = {}\n", ("problem.seconds", "inf"), 2
    ),
    "a date for a number": Malformed(
        "[[pipeline]]\nsample = {n = 1979-05-27}\n", ("sample.n", "'1979-05-27'"), 2
    ),
    "cycle": Malformed(
        '[pipeline.s]\nsample = {}\n\n[pipeline.a]\nmajority_vote = {}\nafter = ["s", "b"]\n\n'
        '[pipeline.b]\nmajority_vote = {}\nafter = "a"\n',
        ("a -> b -> a",),
        4,
    ),
    "loose end": Malformed(
        "[pipeline.a.sample]\n[pipeline.b.sample]\n[pipeline.c]\nmajority_vote = {}\nafter = ['a']\n",
        ("pipeline.b", "bypass 'c'"),
        2,
    ),
    "selector without scores": Malformed(
        "[[pipeline]]\nsample = {n = 2}\n\n[[pipeline]]\nbest_of = {}\n", ("'best_of' needs scores",), 4
    ),
}  # fmt: skip
