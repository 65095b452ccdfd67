"""Tests of the whole service, over HTTP and on the command line."""
