"""Where labs lie in the state folder."""

DEMO_FOLDER = "lab"
"""The folder of the lab that `./run demo` builds, and of the one that `./run lab up` keeps."""
