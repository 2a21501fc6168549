"""What is said in a chat: which order it is, and which code confirms one. Pure."""
