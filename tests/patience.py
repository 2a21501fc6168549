"""How long tests wait for what comes before their subject: a server that starts, a step that is taken up."""

PATIENCE = 100.0
"""Seconds until what has not come is not going to come, on a machine that is busy or half as fast as another.

It is for no wait whose length a test promises: what happens at once, before a lease ends or within seconds
keeps a bound of its own.
"""
