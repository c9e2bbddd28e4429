"""Malformed YAML files: what is wrong, where, and the words that must be said about it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Malformed(NamedTuple):
    """A file that must be refused."""

    text: str | bytes
    says: tuple[str, ...]
    """Words of the message: the value at fault, the rule, the next step."""
    line: int | None = None
    """The line at fault, where it can be known."""
    errors: int = 1
    """How many mistakes it holds; each is said on a line of its own."""


def _model(settings: str) -> str:
    return f"models:\n  default:\n    backend: openai\n    model: m\n    {settings}\npipeline:\n  - sample\n"


def _budget(limit: str) -> str:
    return f"budget:\n  run:\n    {limit}\npipeline:\n  - sample\n"


def _laughs(opening: str, names: str) -> str:
    """Lists of nine aliases each: with nine names, four hundred million words in half a page."""
    text = f"{opening}&a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in pairwise(names):
        text += f"  - &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    return text


KEYS = {
    "misspelt key": Malformed(
        "pipeline:\n  - sample:\n      n: 4\n      temprature: 0.8\n", ("'temprature'", "'temperature'"), 4
    ),
    "misspelt key at the top": Malformed(
        "pipelin:\n  - sample\n", ("'pipelin'", "Did you mean 'pipeline'?", "missing"), 1, errors=2
    ),
    "misspelt stage": Malformed("pipeline:\n  - sampel: {n: 4}\n", ("'sampel'", "Did you mean 'sample'?"), 2),
    "unknown stage": Malformed("- sample\n- levitate: {}\n", ("no stage", "'levitate'", "majority_vote"), 2),
    "unknown verifier": Malformed(
        "- sample: {n: 2}\n- verify:\n    verifier: unit_test\n- best_of\n",
        ("no verifier", "'unit_test'", "Did you mean 'unit_tests'?"),
        3,
    ),
    "a stage as a verifier": Malformed(
        "- sample\n- verify: {verifier: sample}\n- best_of\n", ("no verifier named 'sample'", "unit_tests"), 2
    ),
    "unknown backend": Malformed(
        "models:\n  default: {backend: opnai, model: m}\npipeline: [sample]\n", ("'opnai'", "'openai'"), 2
    ),
    "misspelt key of a nested verifier": Malformed(
        "- sample\n- verify:\n    verifier:\n      unit_tests:\n        limits:\n          cpu_second: 1\n- best_of\n",
        ("'cpu_second'", "Did you mean 'cpu_seconds'?"),
        6,
    ),
    "misspelt key of a model behind another": Malformed(
        "models:\n  default:\n    backend: replay\n    path: r.jsonl\n    beyond:\n      openai:\n        modle: m\n"
        "pipeline: [sample]\n",
        ("models.default.beyond.openai", "'modle'", "Did you mean 'model'?"),
        7,
    ),
    "wrong value of a nested verifier": Malformed(
        "- sample\n- verify:\n    verifier:\n      unit_tests:\n        limits: {cpu_seconds: 0}\n- best_of\n",
        ("cpu_seconds", "greater than 0", "found 0"),
        5,
    ),
    "two verifiers in one place": Malformed(
        "- sample\n- verify: {verifier: {unit_tests: {}, other: {}}}\n- best_of\n",
        ("one verifier", "'unit_tests', 'other'"),
        2,
    ),
    "a list as a verifier": Malformed(
        "- sample\n- verify: {verifier: [unit_tests]}\n- best_of\n", ("verifier", "['unit_tests']"), 2
    ),
    "missing setting": Malformed(
        "- sample\n- verify: {}\n- best_of\n", ("verify.verifier", "'verifier' is missing"), 2
    ),
    "missing setting of a bare stage": Malformed(
        "- sample\n- verify\n- best_of\n",
        ("verify.verifier", "'verifier' is missing"),
        2,
    ),
    "number as key": Malformed("- sample:\n    3: 4\n", ("the key 3", "Put it in quotes"), 2),
    "null as key": Malformed("- sample:\n    ~: 4\n", ("key", "Put it in quotes"), 2),
    "boolean as key": Malformed("- sample:\n    on: 4\n", ("the key True", "Put it in quotes"), 2),
    "list as key": Malformed("- sample:\n    [1, 2]: 4\n", ("the key [1, 2]",), 2),
    "duplicated key": Malformed("- sample:\n    n: 3\n    n: 4\n", ("'n'", "twice", "Keep one"), 3),
    "two stages of one name": Malformed(
        "pipeline:\n  a: {sample: {}}\n  a: {sample: {}}\n", ("'a'", "twice", "Keep one"), 3
    ),
    "nothing in an item": Malformed("- {}\n", ("one stage", "{}"), 1),
    "two stages in one item": Malformed(
        "- sample: {n: 3}\n  best_of: {}\n", ("one stage", "'sample', 'best_of'"), 1
    ),
}

VALUES = {
    "wrong type": Malformed("- sample:\n    n: many\n", ("sample.n", "integer", "'many'"), 2),
    "negative n": Malformed("- sample:\n    n: -1\n", ("sample.n", "greater than or equal to 0", "-1"), 2),
    "negative temperature": Malformed("- sample: {temperature: -0.1}\n", ("temperature", "-0.1"), 1),
    "temperature that is no number": Malformed("- sample: {temperature: .nan}\n", ("temperature", "nan"), 1),
    "infinite temperature": Malformed(
        "- sample: {temperature: .inf}\n",
        ("temperature", "inf"),
        1,
    ),
    "probability above one": Malformed("- sample: {top_p: 1.5}\n", ("top_p", "equal to 1", "1.5"), 1),
    "text for a list": Malformed("- sample: {stop: abc}\n", ("stop", "'abc'"), 1),
    "list for a stage": Malformed("pipeline:\n  - [sample]\n", ("one stage", "['sample']"), 2),
    "nothing for a stage": Malformed("pipeline:\n  -\n  - sample\n", ("one stage", "None"), 2),
    "budget that is not a number": Malformed(_budget("usd: .nan"), ("run.usd", "finite", "nan"), 3),
    "infinite budget": Malformed(_budget("seconds: .inf"), ("run.seconds", "finite", "inf"), 3),
    "infinite tokens": Malformed(_budget("tokens: .inf"), ("run.tokens", "finite", "inf"), 3),
    "negative budget": Malformed(
        _budget("usd: -1"), ("run.usd", "greater than or equal to 0", "found -1"), 3
    ),
    "unknown budget dimension": Malformed(_budget("dollars: 1"), ("'dollars'", "usd"), 3),
    "unknown budget scope": Malformed(
        "budget: {total: {usd: 1}}\npipeline: [sample]\n", ("'total'", "run"), 1
    ),
    "budget as a list": Malformed("budget: [1]\npipeline: [sample]\n", ("budget", "[1]"), 1),
    "budget of nothing": Malformed("budget: 0\npipeline: [sample]\n", ("budget", "found 0"), 1),
    "budget switched off": Malformed("budget: false\npipeline: [sample]\n", ("budget", "found False"), 1),
    "models as a list": Malformed("models: [a]\npipeline: [sample]\n", ("models", "['a']"), 1),
    "models as an empty list": Malformed("models: []\npipeline: [sample]\n", ("models", "[]"), 1),
    "price without output": Malformed(_model("price: {input: 1}"), ("price.output", "missing"), 5),
    "negative price": Malformed(_model("price: {input: -1, output: 1}"), ("price.input", "-1"), 5),
    "timeout of nothing": Malformed(_model("timeout: 0"), ("timeout", "greater than 0", "found 0"), 5),
    "a function by its name": Malformed(
        "models:\n  default:\n    backend: scripted\n    reply: os.system\npipeline: [sample]\n",
        ("reply", "'os.system'"),
        4,
    ),
    "model without a backend": Malformed(
        "models:\n  default: {model: m}\npipeline: [sample]\n", ("models.default", "`backend:`"), 2
    ),
    "model without a name": Malformed(
        "models:\n  default: {backend: openai}\npipeline: [sample]\n", ("'model' is missing",), 2
    ),
    "bad URL": Malformed(_model("base_url: localhost:8000/v1"), ("'localhost:8000/v1'", "http://"), 5),
    "secret as an unknown key": Malformed(_model("api_key: sk-hunter2"), ("'api_key'", "'api_key_env'"), 5),
    "secret in headers": Malformed(
        _model("headers: {X-API-Key: sk-hunter2}"),
        ("'X-API-Key'", "environment"),
        5,
    ),
    "key in headers": Malformed(
        _model("headers: {Authorization: Bearer sk-hunter2}"),
        ("headers", "`api_key_env`"),
        5,
    ),
    "password in URL": Malformed(
        _model("base_url: http://me:hunter2@host/v1"),
        ("base_url", "password", "`api_key_env`"),
        5,
    ),
}

GRAPHS = {
    "cycle": Malformed(
        "pipeline:\n  s: {sample: {}}\n  a: {majority_vote: {}, after: [s, b]}\n  b: {majority_vote: {}, after: a}\n",
        ("a -> b -> a", "remove one `after`"),
        3,
    ),
    "self-cycle": Malformed(
        "pipeline:\n  s: {sample: {}}\n  a:\n    majority_vote: {}\n    after: a\n",
        ("a -> a", "remove one `after`"),
        3,
    ),
    "missing model": Malformed(
        "models:\n  coder: {backend: openai, model: m}\npipeline:\n  - sample:\n      model: coda\n",
        ("'coda'", "Did you mean 'coder'?"),
        4,
    ),
    "loose end": Malformed(
        "pipeline:\n  a: {sample: {}}\n  b: {sample: {}}\n  c: {majority_vote: {}, after: a}\n",
        ("pipeline.b", "bypass 'c'", "`after`"),
        3,
    ),
    "stage that needs candidates first": Malformed(
        "- majority_vote: {}\n", ("'majority_vote' needs candidates", "`sample`"), 1
    ),
    "source in the middle": Malformed(
        "- sample\n- sample: {n: 2}\n", ("'sample'", "takes no candidates", "beside"), 2
    ),
    "selector without verdicts": Malformed(
        "- sample: {n: 3}\n- first_passing\n", ("'first_passing' needs verdicts", "Put `verify` before it"), 2
    ),
    "selector without scores": Malformed(
        "- sample: {n: 3}\n- best_of\n", ("'best_of' needs scores", "Put `verify` before it"), 2
    ),
    "one branch without scores": Malformed(
        "pipeline:\n  s: {sample: {n: 2}}\n  t: {sample: {n: 2}}\n"
        "  v: {verify: {verifier: unit_tests}, after: s}\n  b: {best_of: {}, after: [v, t]}\n",
        ("'best_of' needs scores", "the branch of 't'"),
        5,
    ),
    "`after` twice the same": Malformed(
        "pipeline:\n  s: {sample: {}}\n  v: {majority_vote: {}, after: [s, s]}\n", ("pipeline.v", "twice"), 3
    ),
    "`after` something unknown": Malformed(
        "pipeline:\n  draw: {sample: {}}\n  v: {majority_vote: {}, after: [drow]}\n",
        ("'drow'", "Did you mean 'draw'?"),
        3,
    ),
    "`after` a number": Malformed(
        "pipeline:\n  s: {sample: {}}\n  v:\n    majority_vote: {}\n    after: [1]\n", ("after", "[1]"), 5
    ),
    "`after` without a stage": Malformed(
        "pipeline:\n  s: {sample: {}}\n  v: {after: s}\n",
        ("pipeline.v", "one stage", "'after'"),
        3,
    ),
    "name with a slash": Malformed("pipeline:\n  a/b: {sample: {}}\n", ("'a/b'", "'/'"), 2),
    "empty name": Malformed("pipeline:\n  '': {sample: {}}\n", ("'' cannot name a stage",), 1),
    "no stages": Malformed("pipeline: []\n", ("no stages", "at least one"), 1),
    "no named stages": Malformed("pipeline: {}\n", ("no stages", "at least one"), 1),
    "nested pipeline without stages": Malformed("pipeline:\n  - pipeline: []\n", ("no stages",), 2),
    "pipeline of nothing": Malformed("pipeline:\n", ("list of stages", "None"), 1),
    "a ready pipeline's name": Malformed("pipeline: best_of_n\n", ("list of stages", "'best_of_n'"), 1),
    "mistake inside a nested pipeline": Malformed(
        "pipeline:\n  - pipeline:\n      - sample\n      - best_of\n",
        ("pipeline[0].pipeline[1]", "'best_of' needs scores"),
        4,
    ),
    "mistakes everywhere": Malformed(
        "budget: {run: {dollars: 1}}\nmodels:\n  a: {backend: opnai}\npipeline:\n  - sampel\n  - best_of: {bye: x}\n",
        ("'dollars'", "'opnai'", "'sampel'", "'bye'"),
        5,
        errors=4,
    ),
}

TEXTS = {
    "empty file": Malformed("", ("empty", "pipeline:")),
    "comment-only file": Malformed("# nothing yet\n", ("empty", "pipeline:")),
    "null": Malformed("null\n", ("empty", "pipeline:")),
    "a word": Malformed("hello\n", ("'hello'", "pipeline:"), 1),
    "a number": Malformed("42\n", ("found 42", "pipeline:"), 1),
    "binary file": Malformed(bytes(range(256)), ("not UTF-8", "Expected YAML or TOML")),
    "picture": Malformed(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ("not UTF-8", "Expected YAML or TOML")),
    "UTF-16": Malformed("pipeline:\n  - sample\n".encode("utf-16"), ("not UTF-8",)),
    "UTF-16 without its mark": Malformed("- sample\n".encode("utf-16-be"), ("YAML",)),
    "Latin-1": Malformed("# café\n- sample\n".encode("latin-1"), ("not UTF-8",)),
    "zero byte": Malformed(b"- sample: {system: 'a\0b'}\n", ("YAML",)),
    "control character": Malformed("- sample: {system: 'a\x07b'}\n", ("YAML",)),
    "with a byte order mark": Malformed("\ufeffpipeline:\n  - sampel\n", ("'sampel'", "'sample'"), 2),
    "with Windows line ends": Malformed(
        b"pipeline:\r\n  - sample:\r\n      nn: 3\r\n", ("'nn'", "Did you mean 'n'?"), 3
    ),
    "tabs": Malformed("pipeline:\n\t- sample\n", ("not valid YAML", "'\\t'"), 2),
    "unclosed bracket": Malformed(
        "pipeline:\n  - sample: {n: 3\n  - best_of\n",
        ("not valid YAML",),
        2,
    ),
    "unclosed quote": Malformed(
        'pipeline:\n  - sample: {system: "abc}\n',
        ("not valid YAML",),
        2,
    ),
    "two documents": Malformed(
        "pipeline: [sample]\n---\npipeline: [sample]\n", ("not valid YAML", "document"), 2
    ),
    "alias of nothing": Malformed("pipeline: *nope\n", ("'nope'",), 1),
    "huge file": Malformed(b"# " + b"x" * 11_000_000, ("10 MB",)),
    "long value": Malformed(
        "pipeline: " + "x" * 100_000,
        ("list of stages", "xxx"),
        1,
    ),
}

HOSTILE = {
    "a tag that runs a command": Malformed(
        "pipeline: !!python/object/apply:os.system ['touch pwned']\n", ("os.system", "without tags"), 1
    ),
    "a tag that makes an object": Malformed(
        "pipeline:\n  - sample: !!python/object/new:os.system ['touch pwned']\n",
        ("os.system", "without tags"),
        2,
    ),
    "a tag on a key": Malformed(
        "pipeline: [sample]\n!!python/object/apply:os.system ['touch pwned']: x\n", ("os.system",), 2
    ),
    "a tag on a name": Malformed(
        "pipeline:\n  - !!python/name:os.system sample\n", ("os.system", "without tags"), 2
    ),
    "a tag of one's own": Malformed("pipeline:\n  - sample: !Ref foo\n", ("'!Ref'", "without tags"), 2),
    "billion laughs": Malformed(
        _laughs("words:\n  - ", "abcdefghi") + "pipeline: *i\n", ("100,000 values", "aliases"), None
    ),
    "billion laughs as a key": Malformed(
        _laughs("pipeline: [sample]\n? - ", "abcde") + ": 1\n",
        ("key", "list"),
        2,
    ),
    "a list that holds itself": Malformed("pipeline: &p\n  - sample\n  - *p\n", ("nested too deeply",)),
    "very deep list": Malformed("pipeline: " + "[" * 1000 + "]" * 1000 + "\n", ("nested too deeply",)),
    "very deep mapping": Malformed(
        "pipeline: " + "{a: " * 1000 + "x" + "}" * 1000 + "\n", ("nested too deeply",)
    ),
    "unclosed a thousand times": Malformed("pipeline: " + "[" * 1000, ("nested too deeply",)),
    "a date that is none": Malformed("- sample: {seed: 2024-13-45}\n", ("seed", "2024-13-45"), 1),
    "a number that is none": Malformed("- sample: {n: !!int abc}\n", ("abc",), 1),
    "a boolean that is none": Malformed("- sample: {n: !!bool abc}\n", ("abc",), 1),
    "a timestamp that is none": Malformed("- sample: {n: !!timestamp abc}\n", ("abc",), 1),
    "five thousand digits": Malformed(f"- sample: {{n: {'9' * 5000}}}\n", ("999",), 1),
    "an empty number": Malformed("- sample: {n: !!int ''}\n", ("''", "int"), 1),
    "five thousand digits in another base": Malformed(f"- sample:\n    n: 0x{'f' * 5000}\n", ("0xfff",), 2),
    "a set": Malformed("- sample:\n    stop: !!set {a, b}\n", ("set", "without tags"), 2),
    "deeper than anything needs": Malformed(
        "pipeline:\n  " + "[" * 150 + "]" * 150, ("nested too deeply",), 2
    ),
    "long key": Malformed(f"- sample:\n    {'k' * 500}: 1\n", ("unknown key 'kkkk",), 2),
    "merge key": Malformed(
        "pipeline:\n  - sample: &s {n: 3}\n  - sample: {<<: *s}\n", ("not valid YAML", "merge"), 3
    ),
}

YAML = {**KEYS, **VALUES, **GRAPHS, **TEXTS, **HOSTILE}
