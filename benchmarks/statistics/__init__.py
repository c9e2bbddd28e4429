"""Statistics of samples and of problems: estimators, intervals, comparisons. Pure functions of arrays."""
