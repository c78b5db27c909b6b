"""What a store costs besides latency: growth, memory, writing."""
