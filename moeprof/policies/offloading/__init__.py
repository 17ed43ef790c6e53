"""What offloading systems decide: which precision a miss loads, in which order, who is evicted, where an expert is computed."""
