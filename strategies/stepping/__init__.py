"""Search over unfinished answers: one engine that extends and scores them, and algorithms that are pure functions.

A *partial* answer is an immutable value (`partial.py`). An algorithm says which partial answers it wants extended,
is told what became of them, and never sees a model (`search.py`). The engine extends and scores all that are wanted
at once, in shared batches (`engine.py`). A stage joins the two (`stage.py`).
"""
