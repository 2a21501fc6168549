"""The chat's process: listens to one chat, hands on what is said to the API, and shows what that answers."""
