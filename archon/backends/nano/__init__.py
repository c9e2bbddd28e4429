"""Tiny models that ship with the package and run here, in numpy: a language model and two reward models.

`backend.py` is the model a configuration names; it starts worker processes (`processes.py`, `worker.py`), each with
one BLAS thread and one engine (`engine.py`) that decodes the samples of all requests together (`llama.py`,
`batch.py`). Nothing here needs a key, a GPU or a download.
"""
