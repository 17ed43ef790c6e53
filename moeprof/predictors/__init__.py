"""Networks that predict which experts tokens will need, from the embeddings of the tokens: SiDA's, behind `moeprof fit-predictor`."""
