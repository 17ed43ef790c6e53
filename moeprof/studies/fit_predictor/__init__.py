"""Fits a predictor of experts to a model, and judges it on documents that it was not fitted on."""
