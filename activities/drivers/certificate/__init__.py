"""The certificate that a gateway's users see: asked for, proved, laid down whole."""
