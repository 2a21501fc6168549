"""How long tests wait for what has to come, where no test is about how soon."""

PATIENCE = 100.0
"""Seconds until what has not come is not going to come.

A machine that is busy, or half as fast as another, takes several times as long for everything; whoever waits
for less says whose promise that is.
"""
