"""The process reward model as it begins, before any roll-out: the writer inside it, and an eye for wrong tokens."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from archon.backends.nano.folder import SHIPPED
from archon.benchmarks.lab.family import tasks
from archon.benchmarks.lab.training.data import FAMILIES

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = Path(os.environ.get("ARCHON_VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
SCRIPT = """
import json, sys, torch
from pathlib import Path
from archon.backends.nano.folder import read_tensors
from archon.benchmarks.lab.training.comparing import comparing
from archon.benchmarks.lab.training.labels import Labelled
from archon.benchmarks.lab.training.model import Language, Shape
from archon.benchmarks.lab.training.rewards import scored
torch.set_num_threads(1)
torch.manual_seed(0)
folder, solved, pairs = json.load(sys.stdin)
writer = Language(Shape())
tensors = read_tensors(Path(folder) / "model.safetensors")
writer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})
net = comparing(writer, [Labelled(q, r, {len(r): 1.0}) for q, r in solved], steps=300)

def end(texts):
    told = [Labelled(q, r, {len(r): 1.0}) for q, r in texts]
    return [one[len(r)] for one, (_, r) in zip(scored(net, told), texts)]

tokens = torch.tensor([Labelled(q, r, {}).tokens[:40] for q, r in solved[:20]])
with torch.no_grad():
    inside = net.model.embed_tokens(tokens)
    for layer in net.model.layers[:5]:
        inside = layer(inside, net.model.cos[:40], net.model.sin[:40])
    own = writer.model.before_norm(tokens)
print(json.dumps({
    "off": float((inside[..., :128] - own).norm() / own.norm()),
    "free": sorted({name.split(".")[2] for name, p in net.named_parameters() if p.requires_grad and "layers" in name}),
    "better": [a > b for a, b in zip(end([p[:2] for p in pairs]), end([[p[0], p[2]] for p in pairs]))],
}))
"""


def wrong(reply: str) -> str:
    """With another digit at the end of its second line."""
    lines = reply.split("\n")
    at = max(i for i, c in enumerate(lines[1]) if c.isdigit())
    lines[1] = lines[1][:at] + str((int(lines[1][at]) + 3) % 10) + lines[1][at + 1 :]
    return "\n".join(lines)


def test_it_holds_the_writer_and_notices_a_wrong_digit() -> None:
    source = tasks(FAMILIES["arith"], 4, "train", 5)
    solved = [(task.question, task.solution) for _, task in zip(range(300), source, strict=False)]
    pairs = [(question, reply, wrong(reply)) for question, reply in solved[:100]]
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT],
        input=json.dumps([str(SHIPPED / "lm"), solved, pairs]),
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["off"] < 0.01, "the writer's layers do what they did"
    assert found["free"] == ["7"], "only the last layer is learnt from roll-outs"
    assert sum(found["better"]) > 90, "of 100; a coin would have 50"
