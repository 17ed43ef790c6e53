"""The layer under study: router, dispatch, experts, combine."""
