"""Tests that fail can be told about, whatever garbage is collected meanwhile."""

import ast
import gc

SOURCE = "\n".join(f"name_{number} = [{number}, (1, 2, {{3: 4}})]" for number in range(200))


class Tells:
    """Garbage that makes a syntax tree at its end, as the traceback of a forgotten task does."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        ast.parse("[1, (2, {3: 4})]")


def test_a_syntax_tree_is_made_whole_while_garbage_makes_others() -> None:
    often = gc.get_threshold()
    try:
        for soon in range(1, 200):  # of these some have garbage collected in the middle of the tree
            gc.disable()
            Tells()
            gc.set_threshold(soon)
            gc.enable()
            assert len(ast.parse(SOURCE).body) == 200
    finally:
        gc.set_threshold(*often)
        gc.enable()
