"""Problems with graders, the harness that runs a pipeline over them, statistics, and reports."""
