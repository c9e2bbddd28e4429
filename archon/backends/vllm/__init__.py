"""Models on vLLM: a server of ours, started and ended with the run, or one that runs already.

`config.py` is the model a configuration names, `replicas.py` its backend. `server.py` starts a server and holds
it; `keeper.py` is the process that stands between us and vLLM and ends it when nobody holds it any more.
"""
