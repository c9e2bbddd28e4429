"""Engine tuning: the serving options of a model with the most throughput at a latency limit (`archon tune`)."""
