"""Fitting a network and evaluating it, in runs that can be stopped and resumed."""
