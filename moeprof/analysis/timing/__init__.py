"""From recorded rounds to latency, throughput, breakdowns, communication and stalls."""
