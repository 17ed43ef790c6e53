"""MoE models of Hugging Face transformers (extra `moeprof[hf]`): where their experts are, what is routed to them, how they are loaded."""
