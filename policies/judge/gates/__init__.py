"""The kinds of gates: each file has one kind's questions, what it reads, how it folds, and its verdict."""
