"""The reference in docs/reference: written from the models, the settings and the commands themselves."""
