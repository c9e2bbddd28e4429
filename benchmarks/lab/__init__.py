"""The lab: families of problems made from seeds, for the nano models and for anything else.

`arith` rewrites an expression line by line, `listfn` writes a list function from examples, `chain` follows
assignments: three regimes of test-time compute (steps that can be checked, programs with few visible tests,
questions that pay for being taken apart).
"""
