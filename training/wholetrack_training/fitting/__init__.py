"""Training and evaluation of a network, in runs that can be interrupted and continued."""
